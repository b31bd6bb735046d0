"""Golden traces of addresses of both corpora: traces.txt, as a pipe gets them.

Each begins with a line ``== corpus/system address``.  The host's own path is left out, and sizes that
depend on it are N.  To write the file anew after a change of words, and then read the difference:

    TRACES=write pytest tests/cvmctl/trace/test_traces.py
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
import vhosts
from hosts import CORPUS, load, materialise, temporary_directory
from vlisting import with_plugin

from cvm_qmail.cvmctl.trace import capture
from cvm_qmail.cvmctl.trace.command import full, node
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import recipient_of
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

GOLDEN = Path(__file__).with_name("traces.txt")
_, *SECTIONS = re.split(r"^== (\S+) (.*)\n", GOLDEN.read_text(), flags=re.MULTILINE)
TRACES = list(zip(SECTIONS[::3], SECTIONS[1::3], SECTIONS[2::3], strict=True))


def traced(system: str, address: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What a pipe gets."""
    loaded = load(CORPUS / f"{system}.json")
    with temporary_directory() as root:
        host = vhosts.materialise(loaded, root) if system.startswith("vpopmail/") else materialise(loaded, root)
        settings = Settings.from_environment(host.environment)
        case = capture.look_up(recipient_of(os.fsencode(address)), settings, with_plugin)
        output.tree([node(full(case, "cvm-qmail"))])
        said = capsys.readouterr().out
        return re.sub(r"\b\d+ bytes", "N bytes", said.replace(str(root), ""))


@pytest.mark.parametrize(("system", "address", "golden"), TRACES, ids=[f"{row[0]} {row[1]}" for row in TRACES])
def test_an_address_is_explained(system: str, address: str, golden: str, capsys: pytest.CaptureFixture[str]) -> None:
    got = traced(system, address, capsys)
    if os.environ.get("TRACES") == "write":
        section = f"== {system} {address}\n"
        GOLDEN.write_text(GOLDEN.read_text().replace(section + golden, section + got + "\n"))
    assert got == golden.rstrip("\n") + "\n"
