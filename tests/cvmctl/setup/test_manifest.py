"""cvmctl setup --undo: it takes back what was written, and nothing else."""

from __future__ import annotations

import pytest
from trees import System


@pytest.mark.parametrize("supervisor", ["runit", "s6", "systemd"])
def test_undo_leaves_the_host_as_it_was(system: System, supervisor: str) -> None:
    before = system.files()
    system.applied("--supervisor", supervisor)
    assert system.files() != before
    done = system.run("--undo")
    assert (done.returncode, done.stderr) == (0, "")
    assert system.files() == before
    assert system.run("--undo").stdout == "nothing to undo\n"


def test_undo_leaves_what_was_changed_and_names_it(runit: System) -> None:
    before = set(runit.files())
    runit.applied()
    runit.put("/etc/sv/cvm-rcptto/env/CVM_WORKERS", "4\n")
    runit.put("/etc/sv/cvm-rcptto/run", "#!/bin/sh\nexec mine\n", 0o755)
    done = runit.run("--undo")
    assert done.returncode == 1
    for path in ("/etc/sv/cvm-rcptto/run", "/etc/sv/cvm-rcptto/env"):
        assert f"left {path}: it was changed, or has other files in it\n" in done.stdout
    left = set(runit.files()) - before - {"etc/sv", "etc/sv/cvm-rcptto", "etc/sv/cvm-rcptto/env"}
    assert left == {"etc/sv/cvm-rcptto/run", "etc/sv/cvm-rcptto/env/CVM_WORKERS"}


def test_undo_does_not_take_a_service_away_that_runs(runit: System) -> None:
    runit.applied()
    (runit.root / "etc/service/cvm-rcptto").symlink_to("/etc/sv/cvm-rcptto")
    before = runit.files()
    done = runit.run("--undo")
    assert done.returncode == 100
    assert "/etc/service/cvm-rcptto: the service is in use" in done.stderr
    assert runit.files() == before


def test_what_was_interrupted_can_be_undone(runit: System) -> None:
    runit.put("/var/lib/placeholder")
    before = runit.files()
    runit.applied()
    for name in ("run", "env/CVM_LOOKUP_SECRET", "log/run"):
        (runit.root / "etc/sv/cvm-rcptto" / name).unlink()
    assert runit.run("--undo").returncode == 0
    assert runit.files() == before
