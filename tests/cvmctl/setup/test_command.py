"""cvmctl setup: what it refuses, and what it says."""

from __future__ import annotations

import json

from trees import ELF, System, found

from cvm_qmail.cvmctl.setup.manifest import MANIFEST


def test_applying_twice_is_refused(runit: System) -> None:
    runit.applied()
    before = runit.files()
    assert runit.run("--apply").returncode == 100
    assert runit.files() == before


def test_a_host_without_qmail_gets_no_service(runit: System) -> None:
    (runit.root / "var/qmail/control").rename(runit.root / "var/qmail/gone")
    before = runit.files()
    done = runit.run("--apply")
    assert (done.returncode, "found no qmail" in done.stderr) == (100, True)
    assert runit.files() == before


def test_what_runs_comes_before_systemd_and_what_is_only_installed_after_it(systemd: System) -> None:
    systemd.put("/usr/bin/runsvdir", ELF)
    assert found(systemd)["supervisors"] == ["systemd", "runit"]
    systemd.put("/proc/77/comm", "runsvdir\n")
    assert found(systemd)["supervisors"] == ["runit", "systemd"]


def test_without_a_supervisor_one_must_be_chosen(system: System) -> None:
    assert system.run().returncode == 100
    assert system.run("--supervisor", "s6").returncode == 0


def test_the_manifest_is_for_root_only(runit: System) -> None:
    runit.applied()
    assert runit.mode(MANIFEST) == 0o600


def test_a_damaged_manifest_is_no_reason_to_remove_anything(runit: System) -> None:
    runit.applied()
    runit.put(MANIFEST, "{}")
    before = runit.files()
    assert runit.run("--undo").returncode == 100
    assert runit.files() == before


def test_the_server_is_the_one_beside_cvmctl(runit: System) -> None:
    named = [file for file in found_without_program(runit) if file["path"].endswith("cvm-rcptto/run")]
    assert "/bin/cvm-qmail " in named[0]["text"]


def found_without_program(system: System) -> list[dict[str, str]]:
    done = system.run("--json", program=None)
    files: list[dict[str, str]] = json.loads(done.stdout)["files"]
    return files


def test_a_server_that_its_account_cannot_reach_is_named(runit: System) -> None:
    program = runit.put("/closed/bin/cvm-qmail", "#!/bin/sh\n# cvm_qmail\n", 0o755)
    assert "closed to the account" not in runit.run(program=str(program)).stderr
    (runit.root / "closed").chmod(0o700)
    said = runit.run(program=str(program)).stderr
    assert (
        f"{runit.root}/closed: not accessible to the account cvm, which has to run {program}: install it elsewhere"
        in said
    )


def test_json_has_the_files_as_they_are_written(runit: System) -> None:
    texts = {file["path"]: file["text"] for file in json.loads(runit.run("--json").stdout)["files"]}
    runit.applied()
    written = {path: (runit.root / path.lstrip("/")).read_text() for path in texts}
    assert {path for path in texts if texts[path] != written[path]} == {"/etc/sv/cvm-rcptto/env/CVM_LOOKUP_SECRET"}
    assert "\\\n" in texts["/etc/sv/cvm-rcptto/run"]


def test_a_script_is_shown_as_it_can_be_read(runit: System) -> None:
    assert "\\x5c" not in runit.run().stdout
