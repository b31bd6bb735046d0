"""cvmctl on hosts with vpopmail: the server's own verdict, its words, no secrets; lists and mistakes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import cdblib
import pytest
from calling import called
from hosts import cdb_bytes, load, systems, temporary_directory
from serving import environment
from vhosts import AS_THE_ORIGINALS, VHost, materialise
from vlisting import unlisted

from cvm_qmail.cvmctl.lint.command import findings
from cvm_qmail.settings import Settings
from cvm_vpopmail.cvmctl import instruction
from cvm_vpopmail.lint import KINDS
from cvm_vpopmail.settings import Vpopmail

pytestmark = pytest.mark.root

CVMCTL = Path(sys.executable).with_name("cvmctl")
SYSTEMS = [path for path in systems("vpopmail") if load(path)["cases"] and load(path)["build"]["backend"] == "cdb"]


def settings_of(host: VHost, **more: str) -> Settings:
    return Settings.from_environment({**host.environment, **more})


@pytest.fixture
def host() -> Iterator[VHost]:
    """The first system of the corpus."""
    with temporary_directory() as directory:
        yield materialise(load(next(path for path in SYSTEMS if path.stem == "basic-cdb")), directory)


def cvmctl(host: VHost, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return called(*arguments, env={**environment(None, {}), **host.environment, **more})


def shown(host: VHost, address: str) -> str:
    said = cvmctl(host, "trace", address).stdout.replace(str(host.root), "")
    return re.sub(r"\d+ bytes", "N bytes", said)  # it holds the root's path


# -- trace --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_trace_and_list_say_what_the_server_says(path: Path) -> None:
    system = load(path)
    with temporary_directory() as root:
        settings = settings_of(materialise(system, root), **AS_THE_ORIGINALS, CVM_QMAIL_PROGRAMS="vpopmail")
        missed = unlisted(system, settings, secrets(settings))
    if missed is None:
        assert path.stem in INCOMPLETE, "then nothing is written"
    else:
        assert missed == []


@cache
def secrets_below(root: bytes) -> frozenset[str]:
    """The hashes and clear passwords of all accounts."""
    files = [file for file in Path(os.fsdecode(root)).rglob("vpasswd") if file.is_file()]
    lines = [line for file in files for line in file.read_bytes().split(b"\n")]
    fields = [line.decode("latin-1").split(":", 7) for line in lines]
    found = {field for parts in fields for field in (*parts[1:2], *parts[7:8])}
    return frozenset(secret for secret in found if len(secret) > 8)


def secrets(settings: Settings) -> frozenset[str]:
    return secrets_below(Vpopmail.from_settings(settings).directory)


def test_the_corpus_has_secrets_to_hide(host: VHost) -> None:
    assert len(secrets(settings_of(host))) > 5


def test_an_account_in_an_alias_domain(host: VHost) -> None:
    assert shown(host, "bob@alias.example").endswith(
        """\
  qmail-local: the home and its .qmail files
    home /home/vpopmail/domains/example.com: mode 0700
    .qmail-bob: not there
    .qmail-default: mode 0600, N bytes
    line 1: vdelivermail: an account, else bounce-no-mailbox
  delivery programs
    vpopmail domain alias.example, an alias of example.com: uid 89, gid 89, directory /home/vpopmail/domains/example.com
    vpopmail account bob: home /home/vpopmail/domains/example.com/bob, quota NOQUOTA, flags (none)
    /home/vpopmail/domains/example.com/bob: mode 0700, uid 89
    /home/vpopmail/domains/example.com/bob can be entered
    /home/vpopmail/domains/example.com/bob/.qmail: not there
    /home/vpopmail/domains/example.com/bob/Maildir/tmp can be written to
    /home/vpopmail/domains/example.com/bob/Maildir/new can be written to
  accepted: account /home/vpopmail/domains/example.com/bob, user example.com
  SMTP: 250, unless another plug-in of mailfront rejects it
"""
    )


def test_no_account(host: VHost) -> None:
    assert shown(host, "nobody@example.com").endswith(
        """\
  delivery programs
    vpopmail domain example.com: uid 89, gid 89, directory /home/vpopmail/domains/example.com
    vpopmail has no account nobody
  rejected: no-account /home/vpopmail/domains/example.com/.qmail-default, user example.com
  SMTP: 553 5.1.1 Sorry, that recipient does not exist.
  remedy: if the address should exist: vadduser nobody@example.com, or a file .qmail-NAME in \
/home/vpopmail/domains/example.com
"""
    )


def rewrite(host: VHost, change: Callable[[bytes, bytes], bytes | None]) -> None:
    """Watch the accounts of example.com: name and the rest of its line to a new rest, or None to leave it out."""
    directory = host.domains / "example.com"
    records = list(cdblib.Reader((directory / "vpasswd.cdb").read_bytes()).iteritems())
    changed = [(name, rest) for name, old in records if (rest := change(name, old)) is not None]
    (directory / "vpasswd").write_bytes(b"".join(b"%s:%s\n" % record for record in changed))
    (directory / "vpasswd.cdb").write_bytes(cdb_bytes(changed))
    for name in ("vpasswd", "vpasswd.cdb"):
        os.chown(directory / name, 89, 89)
    os.utime(directory / "vpasswd", (1_000_000_000, 1_000_000_000))


def lock(name: bytes, rest: bytes) -> bytes:
    """bob is locked."""
    fields = rest.split(b":")
    return b":".join([*fields[:2], b"16", *fields[3:]]) if name == b"bob" else rest


def test_a_locked_account(host: VHost) -> None:
    rewrite(host, lock)
    said = shown(host, "bob@example.com")
    assert "quota NOQUOTA, flags BOUNCE_MAIL" in said
    assert "remedy: the account is locked: vmoduser -x bob@example.com clears its flags (all of them)" in said


def test_a_missing_maildir(host: VHost) -> None:
    (host.domains / "example.com/bob/Maildir/new").rmdir()
    said = shown(host, "bob@example.com")
    assert "/home/vpopmail/domains/example.com/bob/Maildir/new is not there" in said
    assert "remedy: make /home/vpopmail/domains/example.com/bob/Maildir/new for uid 89, gid 89" in said


def test_a_stale_vpasswd_cdb(host: VHost) -> None:
    os.utime(host.domains / "example.com/vpasswd.cdb", (1, 1))
    assert "vpasswd is newer than vpasswd.cdb: run vmkpasswd example.com" in shown(host, "nobody@example.com")


def test_the_module_cvm_vpopmail_is_explained_too(host: VHost) -> None:
    done = cvmctl(host, "trace", "--module", "cvm-vpopmail", "--json", "bob@example.com")
    assert json.loads(done.stdout)["facts"]["mailbox"].endswith("/example.com/bob/Maildir/")


def test_program_lines_hide_their_arguments() -> None:
    assert instruction(b"/x/vdelivermail '' '|/bin/x --password=sesame'") == "vdelivermail: an account, else a program"
    assert instruction(b"/x/vdelivermail ''") == "vdelivermail, with wrong arguments"
    assert instruction(b"/bin/x sesame") is None
    assert instruction(b"exit 100") == "exits with 100"


# -- list ---------------------------------------------------------------------------------------------


INCOMPLETE = {"damage"}
"""Systems of which no list is written, since something cannot be listed."""


def test_what_older_checks_accept_is_listed_too(host: VHost) -> None:
    editor = file(host, "team/editor")
    editor.parent.mkdir()
    editor.write_text("")
    for path in (editor.parent, editor):
        os.chown(path, 89, 89)
    more = {"CVM_VPOPMAIL_TMDA": "1", "CVM_VPOPMAIL_EZMLM_DIRECTORY": "1"}
    listed = cvmctl(host, "list", "example.com", **more).stdout.splitlines()
    assert {"bob@example.com", "bob-default@example.com", "team-default@example.com"} <= set(listed)
    assert "bob-default@example.com" not in cvmctl(host, "list", "example.com").stdout


# -- lint ---------------------------------------------------------------------------------------------


@pytest.fixture
def sound(host: VHost) -> VHost:
    """Without what the corpus has odd."""
    (host.root / "var/qmail/control/rcpthosts").write_text("example.com\n")
    return host


class Mistake(NamedTuple):
    name: str
    plant: Callable[[VHost], object]
    kind: str
    file: str
    line: int | None


def file(host: VHost, name: str) -> Path:
    return host.domains / "example.com" / name


MISTAKES = [
    Mistake(
        "not virtual",
        lambda host: (host.root / "var/qmail/control/virtualdomains").write_text("alias.example:alias.example\n"),
        "vpopmail-not-virtual",
        "var/qmail/control/virtualdomains",
        None,
    ),
    Mistake(
        "a stale vpasswd.cdb",
        lambda host: os.utime(file(host, "vpasswd.cdb"), (1, 1)),
        "vpasswd-stale",
        "home/vpopmail/domains/example.com/vpasswd.cdb",
        None,
    ),
    Mistake(
        "accounts that are gone",
        lambda host: [file(host, name).unlink() for name in ("vpasswd", "vpasswd.cdb")],
        "vpasswd-gone",
        "home/vpopmail/domains/example.com/vpasswd.cdb",
        None,
    ),
    Mistake(
        "a damaged vpasswd.cdb",
        lambda host: file(host, "vpasswd.cdb").write_bytes(b"x" * 3000),
        "vpasswd-damaged",
        "home/vpopmail/domains/example.com/vpasswd.cdb",
        None,
    ),
    Mistake(
        "a capital letter",
        lambda host: file(host, "vpasswd").write_text("Bob:x:1:0:::\n"),
        "vpasswd-capital",
        "home/vpopmail/domains/example.com/vpasswd",
        1,
    ),
    Mistake(
        "no .qmail-default",
        lambda host: file(host, ".qmail-default").unlink(),
        "vpopmail-no-default",
        "home/vpopmail/domains/example.com/.qmail-default",
        None,
    ),
    Mistake(
        "no maildir",
        lambda host: file(host, "bob/Maildir/new").rmdir(),
        "vpopmail-account",
        "home/vpopmail/domains/example.com/bob/Maildir/new",
        None,
    ),
]


def kinds(host: VHost) -> list[tuple[str, bytes, int | None]]:
    found, unknown = findings(settings_of(host))
    assert not unknown
    return [(finding.kind, finding.file, finding.line) for finding in found]


def test_nothing_of_vpopmail_is_found_in_a_sound_host(sound: VHost) -> None:
    assert [kind for kind, _, _ in kinds(sound) if kind.startswith(("vp", "cdb", "assign", "dotqmail"))] == []


@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.name for mistake in MISTAKES])
def test_a_planted_mistake_is_found(sound: VHost, mistake: Mistake) -> None:
    before = set(kinds(sound))
    mistake.plant(sound)
    where = f"{sound.root}/{mistake.file}".encode()
    assert (mistake.kind, where, mistake.line) in set(kinds(sound)) - before


def test_every_kind_of_mistake_is_planted() -> None:
    assert {mistake.kind for mistake in MISTAKES} == KINDS.keys()


def test_a_locked_account_is_no_mistake(sound: VHost) -> None:
    rewrite(sound, lock)
    assert "vpopmail-account" not in [kind for kind, _, _ in kinds(sound)]
