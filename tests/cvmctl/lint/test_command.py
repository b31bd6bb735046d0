"""cvmctl lint: each mistake planted in a sound host is found where it is, and in the sound host nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from calling import called
from hosts import Host
from planting import ASSIGN, users_assign
from serving import PLUGINS, environment

from cvm_qmail.cvmctl.host.findings import Finding

pytestmark = pytest.mark.root

CVMCTL = Path(sys.executable).with_name("cvmctl")


def lint(host: Host, *arguments: str, **more: str | None) -> subprocess.CompletedProcess[str]:
    return called("lint", *arguments, env=environment(host, more))


def test_nothing_is_found_in_a_sound_host(sound: Host) -> None:
    done = lint(sound)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


def test_nor_in_one_with_users_cdb(sound: Host) -> None:
    users_assign(sound, *ASSIGN)
    done = lint(sound)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing found\n", "")


# -- how it is reported -----------------------------------------------------------------------------------


def test_a_finding_has_place_consequence_and_remedy(sound: Host) -> None:
    sound.control("locals", "example.org\nx.example\r\n")
    done = lint(sound)
    assert done.returncode == 1
    assert done.stdout.replace(str(sound.root), "") == (
        "/control/locals line 2: ends in a carriage return, which becomes part of the entry\n"
        "  x.example is not found in it\n"
        "  remedy: fix the line and send qmail-send HUP\n"
        "  control-syntax\n"
        "1 found\n"
    )


def test_json_has_one_object_a_line(sound: Host) -> None:
    (sound.root / "home/joe").chmod(0o757)
    done = lint(sound, "--json")
    (finding,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert finding["kind"] == "home-writable"
    assert finding["file"] == f"{sound.root}/home/joe"
    assert set(finding) == set(Finding._fields)


def test_a_temporary_failure_is_no_clean_bill(sound: Host) -> None:
    (sound.root / "passwd").unlink()
    sound.directory("passwd")
    done = lint(sound)
    assert done.returncode == 111
    assert f"could not be determined: passwd {sound.root}/passwd" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_home_that_hangs_is_a_temporary_failure_and_the_rest_goes_on(sound: Host) -> None:
    sound.file("home/joe/.qmail-stuck", "|hang\n", uid=5001)
    sound.file("home/ann/.qmail-on", "&joe-stuck@example.org\n", uid=5002)
    sound.file("home/ann/.qmail-W", uid=5002)
    done = lint(sound, PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT="500")
    assert done.returncode == 111
    assert (
        f"could not be determined: hang-backoff {sound.root}/home/joe gave no answer within 0.5 seconds\n"
        in done.stderr
    )
    assert "  dotqmail-unreachable\n1 found\n" in done.stdout


@pytest.mark.peer("setpriv")
def test_without_rights_it_says_what_it_could_not_see(sound: Host) -> None:
    (sound.root / "home/joe").chmod(0o700)
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", CVMCTL, "lint"],
        env=environment(sound, {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 111
    assert "not root" in done.stderr
    assert f"could not be determined: refused {sound.root}/home/joe Permission denied" in done.stderr


def test_odd_names_are_escaped(sound: Host) -> None:
    (sound.root / "home/joe/.qmail-\x1b[2JX").write_bytes(b"")
    done = lint(sound)
    assert ".qmail-\\x1b[2JX: its name has a capital letter" in done.stdout
    assert "\x1b" not in done.stdout
