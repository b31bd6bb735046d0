"""What cvmctl says of the programs in .qmail files: traces, lists, mistakes."""

from __future__ import annotations

import os

import pytest
from hosts import ALIAS_UID, NOFILES, Host
from phosts import table
from planting import TARGET, with_table
from surveying import surveyed

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.programs import instruction, words
from cvm_qmail.cvmctl.trace.capture import look_up
from cvm_qmail.cvmctl.trace.narrate import stages
from cvm_qmail.cvmctl.trace.remedies import remedies
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root


def settings_of(host: Host, **variables: str) -> Settings:
    return Settings.from_environment(host.environment | variables)


# -- traces -------------------------------------------------------------------------------------------


def steps(host: Host, account: bytes) -> list[str]:
    case = look_up(Recipient(account, b"example.org"), settings_of(host), qmail)
    return [step.text for stage in stages(case) for step in stage.steps]


def test_a_trace_says_what_the_table_was_asked_and_no_command(sound: Host) -> None:
    said = steps(with_table(sound), b"joe-a")
    path = f"{sound.root}/home/joe/t.cdb"
    assert f"fastforward: target a@example.org: forwards to b@far.example, runs secret, list ./l ({path})" in said
    assert "line 1: fastforward: forwards by t.cdb; bounces without a target" in said
    assert not [text for text in said if "word" in text]


def test_a_trace_says_which_keys_the_table_lacks(sound: Host) -> None:
    said = steps(with_table(sound), b"joe-b")
    missing = [text for text in said if text.startswith("fastforward: target") and ": not in " in text]
    assert [text.split(":")[1].strip() for text in missing] == [
        "target b@example.org",
        "target @example.org",
        "target b@",
    ]


def test_a_trace_advises_what_to_do_for_a_missing_target(sound: Host) -> None:
    host = with_table(sound)
    host.file("home/joe/t", "b@example.org: b@x;\n")
    os.utime(host.root / "home/joe/t.cdb", (1_000_000_000, 1_000_000_000))
    case = look_up(Recipient(b"joe-b", b"example.org"), settings_of(host), qmail)
    advice = "\n".join(remedies(case))
    assert "home/joe/t is newer than" in advice
    assert "run setforward" in advice


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (b"fastforward -p /etc/aliases.cdb", "fastforward: forwards by /etc/aliases.cdb; goes on without a target"),
        (b'fastforward -d "$HOME/t.cdb"', "fastforward: forwards by $HOME/t.cdb; bounces without a target"),
        (b"fastforward -x", "fastforward, with wrong options: bounces"),
        (b"bouncesaying 'a secret'", "bouncesaying: bounces"),
        (b"dot-forward .forward", "dot-forward: forwards by a .forward file"),
        (b"/opt/x secret", None),
        (b"fastforward t.cdb | cat", None),
    ],
)
def test_a_program_line_in_words(command: bytes, expected: str | None) -> None:
    assert instruction(command) == expected


def test_other_tables_are_others_business() -> None:
    assert words("/etc/x.cdb", b"joe", b"secret") is None
    assert words("users/cdb", b":joe", b"x") is None


# -- lists --------------------------------------------------------------------------------------------


def listed(host: Host, **variables: str) -> set[str]:
    found = surveyed(settings_of(host, **variables))
    assert not found.unlisted.count
    assert not found.failures.count
    return {f"{entry.local.decode()}{'*' * entry.pattern}@{entry.domain.decode()}" for entry in found.entries}


def test_the_targets_of_a_table_are_listed(sound: Host) -> None:
    host = with_table(sound)
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    entries = listed(host)
    assert {"joe-a@example.org", "joe-every@example.org", "joe-void@example.org"} <= entries
    assert not {"joe-joe-x@v.example", "joe-*@example.org", "joe-b@example.org"} & entries


def test_the_targets_of_the_alias_account_are_listed(sound: Host) -> None:
    sound.directory("bin")
    sound.file("alias/.qmail-default", "|fastforward aliases.cdb\n", uid=ALIAS_UID, gid=NOFILES)
    sound.file(
        "alias/aliases.cdb",
        table({b":Help.Desk@example.org".lower(): TARGET, b":sales@": TARGET, b":no@elsewhere": TARGET}),
    )
    entries = listed(sound)
    assert {"help.desk@example.org", "sales@example.org", "postmaster@example.org"} <= entries
    assert not {"no@example.org", "*@example.org"} & entries


def test_a_table_that_takes_a_whole_domain_is_a_pattern(sound: Host) -> None:
    host = with_table(sound, content=table({b":@example.org": TARGET}))
    host.users("+joe-:joe:5001:5001:{root}/home/joe:-::")
    assert "joe-*@example.org" in listed(host)
