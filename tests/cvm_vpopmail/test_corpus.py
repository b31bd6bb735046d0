"""The golden corpus of vpopmail: whole hosts, and what the real programs did with each address and login.

100 %, through the real servers: deliveries as a plug-in of cvm-qmail, logins as cvm-vpopmail.  Deliveries as
cvm-vpopmail, and both as the service's own user, on some hosts each; CORPUS=whole: on all.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hosts import load, systems
from serving import CVM_QMAIL, some
from vcorpus import CVM_VPOPMAIL, faults, login_faults

pytestmark = pytest.mark.root

SYSTEMS = [path for path in systems("vpopmail") if load(path)["build"]["backend"] == "cdb"]
DELIVERIES = [path for path in SYSTEMS if load(path)["cases"]]
LOGINS = [path for path in SYSTEMS if load(path)["auth_cases"]]


@pytest.mark.parametrize("path", DELIVERIES, ids=lambda path: path.stem)
def test_every_delivery_as_a_plugin_of_cvm_qmail(path: Path) -> None:
    assert not faults(path, load(path), CVM_QMAIL)


@pytest.mark.parametrize("path", some(DELIVERIES, 3, first=1), ids=lambda path: path.stem)
def test_every_delivery_as_a_module_of_its_own(path: Path) -> None:
    assert not faults(path, load(path), CVM_VPOPMAIL, module=True)


@pytest.mark.parametrize("path", LOGINS, ids=lambda path: path.stem)
def test_every_login(path: Path) -> None:
    assert not login_faults(path, load(path))


@pytest.mark.peer("setpriv")
@pytest.mark.parametrize("path", some(DELIVERIES, 5), ids=lambda path: path.stem)
def test_every_delivery_as_the_services_own_user(path: Path) -> None:
    assert not faults(path, load(path), CVM_QMAIL, as_service=True)


@pytest.mark.peer("setpriv")
@pytest.mark.parametrize("path", some(LOGINS, 3), ids=lambda path: path.stem)
def test_every_login_as_the_services_own_user(path: Path) -> None:
    assert not login_faults(path, load(path), as_service=True)


def test_the_corpus_is_all_there() -> None:
    assert sum(len(load(path)["cases"]) for path in SYSTEMS) == 1681
    assert sum(len(load(path)["auth_cases"]) for path in SYSTEMS) == 724
