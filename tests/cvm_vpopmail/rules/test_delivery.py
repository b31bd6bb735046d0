"""What becomes of a message that a .qmail file hands over to vdelivermail, and of the file's other lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from disk import NOW, Asking, Disk
from vmemory import policy_of

from cvm_qmail.answer import Recipient, Unavailable, Verdict
from cvm_qmail.plugin import Delivery
from cvm_qmail.rules.dotqmail import DotQmail, Found
from cvm_qmail.rules.users import User
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Account, Domain, Flag
from cvm_vpopmail.rules.delivery import judge
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.outcome import Outcome
from cvm_vpopmail.rules.records import is_domain_record
from cvm_vpopmail.rules.vdelivermail import ACTIONS, REPEATED, RUNS, Places

DD = b"/v/domains/example.com"
UID = 89
EXAMPLE = Domain(b"example.com", UID, UID, DD)
BOUNCE = b"| /v/bin/vdelivermail '' bounce-no-mailbox\n"
MAILDIR = b"%s/bob/Maildir" % DD
FULL = b"100S\n100 1\n"
"""A maildirsize that says: there is no room."""


class NoSecret:
    def verify(self, *_: object) -> bool:
        raise AssertionError("a delivery asks nobody for a password")


def account(name: str = "bob", *, flags: int = 0, directory: bytes | None = None, quota: bytes = b"NOQUOTA") -> Account:
    home = b"%s/%s" % (DD, name.encode()) if directory is None else directory
    return Account(name.encode(), flags, b"", home, quota, NoSecret())


def a_disk(**contents: bytes) -> Disk:
    """The domain's directory with bob's home and maildir; keyword arguments are .qmail files of bob's."""
    disk = Disk()
    disk.directory(DD, mode=0o700, uid=UID)
    home_of(disk, "bob")
    for name, text in contents.items():
        disk.file(b"%s/bob/%s" % (DD, name.replace("_", "-").replace("dot", ".", 1).encode()), text, uid=UID)
    return disk


def home_of(disk: Disk, name: str) -> None:
    home = b"%s/%s" % (DD, name.encode())
    disk.directory(home, mode=0o700, uid=UID)
    disk.maildir(home + b"/Maildir", UID)


def delivery(address: str, lines: bytes = BOUNCE, *, file: bytes = b".qmail-default", **user: Any) -> Delivery:
    """What qmail-local has for an address of example.com."""
    local, _, host = address.encode("latin-1").rpartition(b"@")
    own = User(b"example.com", UID, UID, DD, b"-", local, b"!example.com-")._replace(**user)
    found = Found(file, DotQmail(0o600, lines), default=file.endswith(b"default"))
    return Delivery(Recipient(local, host), own, own.dash, local, host, found, b"example.com-" + local)


def outcome(
    of: Delivery | str,
    lines: bytes = BOUNCE,
    *,
    accounts: Sequence[Account] = (),
    disk: Disk | None = None,
    domains: Mapping[bytes, Domain] | None = None,
    aliases: Mapping[tuple[bytes, bytes], list[bytes]] | None = None,
    limits: Mapping[Domain, Limits] | None = None,
    uid: int = UID,
    **settings: str,
) -> Outcome | None:
    """What the rules say; settings by the end of their names, in small letters."""
    disk = a_disk() if disk is None else disk
    places = Places(
        {b"example.com": EXAMPLE, b"alias.example": EXAMPLE} if domains is None else domains,
        {(EXAMPLE, known.name): known for known in accounts},
        aliases,
        {} if limits is None else limits,
        disk.seen_by(Rights(uid, uid)),
        uid,
        b"/q",
        lambda: float(NOW),
    )
    policy = policy_of(**{f"CVM_VPOPMAIL_{name.upper()}": value for name, value in settings.items()})
    return judge(delivery(of, lines) if isinstance(of, str) else of, places, policy)


def says(*given: Any, **more: Any) -> str:
    """The mark and reason of the answer; ``?`` and the reason if nothing can be determined."""
    try:
        found = outcome(*given, **more)
    except Unavailable as error:
        return f"? {error.reason}"
    return "qmail's own" if found is None else f"{found.answer.verdict.value} {found.answer.reason}"


def bob(**more: Any) -> dict[str, Any]:
    """bob's account, whose file or directory is described by keyword arguments of `account`."""
    return {"accounts": [account("bob", **more)]}


def ext(**more: Any) -> dict[str, Any]:
    return {"qmail_ext": "1", **more}


# -- how it is called ---------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [b"", b" ''", b" '' a b", b" bounce-no-mailbox"])
def test_any_but_two_arguments_defer_also_for_names_that_are_not_valid(arguments: bytes) -> None:
    for address in ("bob@example.com", "b(b@example.com"):
        assert says(address, b"|vdelivermail" + arguments, **bob()) == "? vdelivermail-arguments"


def test_the_first_argument_is_ignored() -> None:
    assert says("no@example.com", b"|vdelivermail what bounce-no-mailbox") == "- no-account"


# -- 1, 2: the name -----------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["Bob@example.com", "BOB@EXAMPLE.COM"])
def test_user_and_host_are_in_lower_case(address: str) -> None:
    assert says(address, **bob()) == "+ account"


def test_user_and_host_are_cut_to_156_bytes() -> None:
    long = "x" * 156
    disk = a_disk()
    home_of(disk, long)
    assert says(f"{long}yz@example.com", accounts=[account(long)], disk=disk) == "+ account"
    assert says(f"{long[1:]}@example.com", accounts=[account(long)], disk=disk) == "- no-account"
    host = "h" * 156
    assert says(f"bob@{host}yz", domains={host.encode(): EXAMPLE}, **bob()) == "+ account"


def test_a_name_that_is_not_valid_bounces_before_anything_else() -> None:
    for line in (BOUNCE, b"|vdelivermail '' delete", b"|vdelivermail '' ann@example.org"):
        for address in ("a b@example.com", 'a"b@example.com', "a%b@example.com", "b\xf6b@example.com", "a@ex_a.com"):
            assert says(address, line, delete="accept") == "- invalid-username"


@pytest.mark.parametrize("sign", "!#$&'*+-./=?^_`{|}~")
def test_a_name_may_hold_these_signs(sign: str) -> None:
    assert says(f"a{sign}b@example.com") == "- no-account"


def test_an_empty_user_is_valid_and_not_found() -> None:
    assert says("@example.com") == "- no-account"


# -- 3: the domain ------------------------------------------------------------------------------------


def test_an_alias_domain_has_the_accounts_of_the_real_one() -> None:
    assert says("bob@alias.example", **bob()) == "+ account"


def test_a_domain_that_vpopmail_does_not_know_has_no_account_and_goes_to_the_catch_all() -> None:
    for line, expected in (
        (BOUNCE, "- no-account"),
        (b"|vdelivermail '' delete", "- catch-all-delete"),
        (b"|vdelivermail '' ann@example.org", "+ catch-all"),
    ):
        assert says("bob@elsewhere.example", line, **bob()) == expected


@pytest.mark.parametrize("uid", [90, 5001])
def test_an_owner_that_does_not_fit_is_temporary_and_not_an_account_that_is_missing(uid: int) -> None:
    assert says("bob@example.com", uid=uid, **bob()) == "? owner"


# -- 5: SQL aliases -----------------------------------------------------------------------------------

LINE = [b"&ann@example.org"]


def aliased(*names: str, lines: list[bytes] = LINE) -> dict[str, Any]:
    return {"aliases": {(b"example.com", name.encode()): lines for name in names}}


@pytest.mark.parametrize(
    ("name", "alias", "expected"),
    [
        ("info", "info", "+ sql-alias"),
        ("INFO", "info", "+ sql-alias"),
        ("list-a-b", "list-a-b", "+ sql-alias"),
        ("list-a-b", "list-a-default", "+ sql-alias"),
        ("list-a-b", "list-default", "+ sql-alias"),
        ("list-a-b", "list-a-b-default", "- no-account"),
        ("list-a-b", "default", "- no-account"),
        ("default", "default", "+ sql-alias"),
        ("list-", "list-default", "+ sql-alias"),
        ("-a", "-default", "+ sql-alias"),
        ("list-a-b", "list", "- no-account"),
    ],
)
def test_an_alias_counts_by_its_name_and_as_default_after_each_dash(name: str, alias: str, expected: str) -> None:
    assert says(f"{name}@example.com", **aliased(alias)) == expected


def test_with_qmail_ext_the_part_before_the_first_dash_is_an_alias_too() -> None:
    assert says("list-a-b@example.com", **aliased("list"), **ext()) == "+ sql-alias"
    assert says("list-a-b@example.com", **aliased("list-a"), **ext()) == "- no-account"


def test_the_first_name_that_has_rows_decides() -> None:
    rows = {(b"example.com", b"list-a-default"): [b"|exit 100"], (b"example.com", b"list-default"): LINE}
    assert says("list-a-b@example.com", aliases=rows) == "- program-bounces"
    assert says("list-b@example.com", aliases=rows) == "+ sql-alias"


def test_an_alias_comes_before_the_account_and_its_lock() -> None:
    assert says("bob@example.com", **aliased("bob"), **bob(flags=Flag.BOUNCE_MAIL)) == "+ sql-alias"


def test_aliases_are_asked_for_by_the_real_domain_s_name_or_the_given_one_of_an_unknown_domain() -> None:
    assert says("info@alias.example", **aliased("info")) == "+ sql-alias"
    assert says("info@Unknown.example", aliases={(b"unknown.example", b"info"): LINE}) == "+ sql-alias"


def test_rows_are_processed_in_order_up_to_the_first_that_fails() -> None:
    disk = a_disk()
    assert says("x@example.com", **aliased("x", lines=[b"# note", b"", b"ann"])) == "+ sql-alias"
    assert says("x@example.com", **aliased("x", lines=[b"ann", b"|exit 100", b"./no/"])) == "- program-bounces"
    assert says("x@example.com", **aliased("x", lines=[b"./no/", b"|exit 100"])) == "? maildir"
    assert says("x@example.com", disk=disk, **aliased("x", lines=[b"./bob/Maildir/"])) == "+ sql-alias"
    assert says("x@example.com", **aliased("x", lines=[b"./Mailbox"])) == "? mbox"


def test_a_build_without_sql_aliases_has_none() -> None:
    assert says("info@example.com", aliases=None) == "- no-account"


def test_an_alias_table_that_cannot_be_reached_is_temporary() -> None:
    def down(_: object) -> None:
        raise Unavailable("database", "down")

    assert says("bob@example.com", aliases=Asking(down), **bob()) == "? database"


# -- 6: which account ---------------------------------------------------------------------------------


def test_an_account_is_found_by_its_whole_name() -> None:
    assert says("bob@example.com", **bob()) == "+ account"
    assert says("bobby@example.com", **bob()) == "- no-account"
    assert says("bob-x@example.com", **bob()) == "- no-account"


def test_with_qmail_ext_also_by_what_is_before_the_first_dash() -> None:
    disk = a_disk()
    home_of(disk, "a-b")
    two = {"accounts": [account("a", flags=Flag.BOUNCE_MAIL), account("a-b")], "disk": disk}
    assert says("a-b@example.com", **two, **ext()) == "+ account"
    assert says("a-b-c@example.com", **two, **ext()) == "- locked"
    assert says("a-@example.com", **two, **ext()) == "- locked"
    assert says("-a@example.com", **two, **ext()) == "- no-account"
    assert says("a-b-c@example.com", **two) == "- no-account"


# -- 7a: locked ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "expected"), [("reject", "- locked"), ("accept", "+ locked")])
def test_a_locked_account_bounces_or_is_accepted_by_policy(policy: str, expected: str) -> None:
    locked = bob(flags=Flag.BOUNCE_MAIL)
    assert says("bob@example.com", locked=policy, **locked) == expected
    assert says("bob@example.com", b"|vdelivermail '' ann@example.org", locked=policy, **locked) == expected


def test_no_other_flag_matters_to_a_delivery() -> None:
    assert says("bob@example.com", **bob(flags=0x7FFFF & ~Flag.BOUNCE_MAIL)) == "+ account"


# -- 7b, 7c: the home ---------------------------------------------------------------------------------


def test_an_account_without_a_home_bounces_in_the_cdb_build_and_is_given_one_in_others() -> None:
    assert says("bob@example.com", **bob(directory=b"")) == "- home-not-made"
    assert says("bob@example.com", backend="mysql", **bob(directory=b"")) == "+ account"


def test_a_home_that_is_missing_is_made_below_the_domain_s_directory_only() -> None:
    for home in (b"%s/new" % DD, b"%s/0/new" % DD):
        assert says("bob@example.com", **bob(directory=home)) == "+ account"
    disk = a_disk()
    disk.directory(b"/elsewhere", DD + b"2", b"/v/domains", uid=UID)
    for home in (b"/elsewhere/bob", b"%s2/bob" % DD, DD + b".old"):
        assert says("bob@example.com", disk=disk, **bob(directory=home)) == "- home-not-made"


def test_a_home_that_is_missing_where_nothing_can_be_made_bounces() -> None:
    disk = a_disk()
    disk.directory(DD, mode=0o500, uid=UID)
    assert says("bob@example.com", disk=disk, **bob(directory=b"%s/new" % DD)) == "- home-not-made"
    disk.file(DD + b"/file", uid=UID)
    assert says("bob@example.com", disk=disk, **bob(directory=b"%s/file/new" % DD)) == "- home-not-made"


@pytest.mark.parametrize("home", [b"/ln", b"/ln/bob", b"/0/ln", b"/0/ln/bob/", b"/ln/"])
def test_nothing_is_made_at_or_behind_a_link_that_leads_nowhere(home: bytes) -> None:
    disk = a_disk()
    disk.directory(DD + b"/0", uid=UID)
    for link in (DD + b"/ln", DD + b"/0/ln"):
        disk.link(link, b"nowhere")
    assert says("bob@example.com", disk=disk, **bob(directory=DD + home)) == "- home-not-made"


def test_a_home_that_cannot_be_looked_at_is_as_one_that_is_missing() -> None:
    disk = a_disk()
    disk.directory(b"/closed", mode=0o700)
    disk.directory(b"/closed/bob", uid=UID)
    assert says("bob@example.com", disk=disk, **bob(directory=b"/closed/bob")) == "- home-not-made"


def test_a_home_that_is_a_link_is_followed_and_one_that_dangles_is_missing() -> None:
    disk = a_disk()
    disk.link(DD + b"/ln", b"bob")
    disk.link(b"/elsewhere", b"nowhere")
    assert says("bob@example.com", disk=disk, **bob(directory=DD + b"/ln")) == "+ account"
    assert says("bob@example.com", disk=disk, **bob(directory=b"/elsewhere")) == "- home-not-made"


def closed_home(**contents: bytes) -> Disk:
    """bob's home cannot be entered; keyword arguments are .qmail files of the domain's directory."""
    disk = a_disk()
    disk.directory(DD + b"/bob", mode=0o600, uid=UID)
    for name, text in contents.items():
        disk.file(b"%s/%s" % (DD, name.replace("_", "-").replace("dot", ".", 1).encode()), text, uid=UID)
    return disk


def test_a_home_that_cannot_be_entered_defers_by_its_maildir() -> None:
    assert says("bob@example.com", disk=closed_home(), **bob()) == "? maildir"


def test_in_the_place_of_a_home_that_cannot_be_entered_the_domain_s_own_qmail_file_is_read() -> None:
    assert says("bob@example.com", disk=closed_home(dotqmail=b"ann\n"), **bob()) == "+ account-dotqmail"
    disk = closed_home(dotqmail=b"./there/\n")
    disk.maildir(DD + b"/there", UID)
    assert says("bob@example.com", disk=disk, **bob()) == "+ account-dotqmail"


def test_a_home_that_cannot_be_entered_and_an_extension_that_finds_vdelivermail_again_never_end() -> None:
    disk = closed_home(dotqmail_default=BOUNCE)
    assert says("bob-x@example.com", disk=disk, **bob(), **ext()) == "? vdelivermail-loop"
    assert says("bob@example.com", disk=disk, **bob(), **ext()) == "? maildir"


def test_a_home_that_is_no_directory_defers() -> None:
    disk = a_disk()
    disk.file(DD + b"/plain", uid=UID)
    assert says("bob@example.com", disk=disk, **bob(directory=DD + b"/plain")) == "? maildir"


# -- 7d: the .qmail file in the home ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"&ann@example.org\n", "+ account-dotqmail"),
        (b"ann@example.org", "+ account-dotqmail"),
        (b"nonsense\n", "+ account-dotqmail"),
        (b"# thrown away\n", "+ account-dotqmail"),
        (b"\n", "+ account-dotqmail"),
        (b"./Maildir/\n", "+ account-dotqmail"),
        (b"%s/\n" % MAILDIR, "+ account-dotqmail"),
        (b"./Maildir\n", "? mbox"),
        (b"/var/mail/bob\n", "? mbox"),
        (b"./Other/\n", "? maildir"),
        (b"|some-program\n", "+ account-dotqmail"),
        (b"|exit 0\n", "+ account-dotqmail"),
        (b"|exit 99\n./no/\n", "+ program"),
        (b"|exit 100\n", "- program-bounces"),
        (b"|exit 64\n", "- program-bounces"),
        (b"|exit 111\n", "? program-defers"),
        (b"|exit 1\n", "? program-defers"),
        (b"ann\n|exit 100\n./no/\n", "- program-bounces"),
        (b"ann\n./no/\n|exit 100\n", "? maildir"),
        (b"|/v/bin/vdelivermail\n", "? vdelivermail-arguments"),
        (b"|/v/bin/vdelivermail '' delete\n", "? vdelivermail-loop"),
    ],
)
def test_a_qmail_file_in_the_home_decides(text: bytes, expected: str) -> None:
    assert says("bob@example.com", disk=a_disk(dotqmail=text), **bob()) == expected


@pytest.mark.parametrize("status", [64, 65, 70, 76, 77, 78, 100, 112])
def test_these_exit_statuses_bounce(status: int) -> None:
    text = b"|exit %d\n" % status
    assert says("bob@example.com", disk=a_disk(dotqmail=text), **bob()) == "- program-bounces"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"./Maildir\0/\n", "? mbox"),
        (b"./Maildir/\0x\n", "+ account-dotqmail"),
        (b"./no\0/\n", "? mbox"),
        (b"|exit 100\0 or not\n", "- program-bounces"),
        (b"\0|exit 100\n", "+ account-dotqmail"),
        (b"|vdelivermail '' delete\0\n", "? vdelivermail-loop"),
    ],
)
def test_a_line_ends_at_a_nul(text: bytes, expected: str) -> None:
    assert says("bob@example.com", disk=a_disk(dotqmail=text), **bob()) == expected


def test_an_empty_qmail_file_is_as_none() -> None:
    assert says("bob@example.com", disk=a_disk(dotqmail=b""), **bob()) == "+ account"


def test_one_that_cannot_be_opened_is_skipped() -> None:
    disk = a_disk()
    disk.file(DD + b"/bob/.qmail", b"|exit 100\n", mode=0o000, uid=UID)
    assert says("bob@example.com", disk=disk, **bob()) == "+ account"
    disk.remove(DD + b"/bob/.qmail")
    disk.directory(DD + b"/bob/.qmail")
    assert says("bob@example.com", disk=disk, **bob()) == "+ account"


def test_neither_its_mode_nor_its_owner_matters() -> None:
    disk = a_disk()
    disk.file(DD + b"/bob/.qmail", b"|exit 100\n", mode=0o666, uid=5001)
    assert says("bob@example.com", disk=disk, **bob()) == "- program-bounces"


def test_the_answer_names_the_file() -> None:
    found = outcome("bob@example.com", disk=a_disk(dotqmail=b"|exit 100\n"), **bob())
    assert found is not None
    assert found.answer.where == DD + b"/bob/.qmail"


# -- 6.1: extensions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "file", "decides"),
    [
        ("bob-x.y", "dotqmail_x:y", True),
        ("bob-X", "dotqmail_x", True),
        ("bob-a-b", "dotqmail_a_b", True),
        ("bob-a-b", "dotqmail_a_default", True),
        ("bob-a-b", "dotqmail_default", True),
        ("bob-a-b", "dotqmail_b", False),
        ("bob-a-b", "dotqmail", True),
        ("bob-", "dotqmail_default", False),
        ("bob-", "dotqmail", True),
        ("bob", "dotqmail_default", False),
        ("bob", "dotqmail", True),
    ],
)
def test_with_qmail_ext_the_extension_s_file_decides_then_the_defaults_then_the_bare_one(
    address: str, file: str, decides: bool
) -> None:
    disk = a_disk(**{file: b"|exit 100\n"})
    expected = "- program-bounces" if decides else "+ account"
    assert says(f"{address}@example.com", disk=disk, **bob(), **ext()) == expected


def test_the_longest_prefix_decides() -> None:
    disk = a_disk(dotqmail_a_default=b"|exit 100\n", dotqmail_default=b"ann\n", dotqmail=b"ann\n")
    assert says("bob-a-b@example.com", disk=disk, **bob(), **ext()) == "- program-bounces"
    assert says("bob-c@example.com", disk=disk, **bob(), **ext()) == "+ account-dotqmail"


def test_an_extension_s_file_that_is_empty_ends_the_search() -> None:
    disk = a_disk(dotqmail_x=b"", dotqmail=b"|exit 100\n")
    assert says("bob-x@example.com", disk=disk, **bob(), **ext()) == "+ account"


def test_the_extension_is_what_follows_the_first_dash_also_of_an_account_s_full_name() -> None:
    disk = a_disk()
    home_of(disk, "a-b")
    disk.file(DD + b"/a-b/.qmail-b", b"|exit 100\n", uid=UID)
    assert says("a-b@example.com", accounts=[account("a-b")], disk=disk, **ext()) == "- program-bounces"


def test_without_qmail_ext_only_the_bare_file_is_read() -> None:
    disk = a_disk(dotqmail_b=b"|exit 100\n", dotqmail_default=b"|exit 100\n")
    home_of(disk, "a-b")
    assert says("bob@example.com", disk=disk, **bob()) == "+ account"


# -- 7e: default delivery -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"ann@example.org\n", "+ default-delivery"),
        (b"# note\n./Maildir/\n", "+ default-delivery"),
        (b"|exit 100\n", "- program-bounces"),
        (b"./no/\n", "? maildir"),
        (b"# only a note\n", "+ account"),
        (b"", "+ account"),
        (b"|vdelivermail '' delete\n", "+ account"),
        (b"ann@example.org\n|vdelivermail '' delete\n./no/\n", "+ account"),
        (b"|exit 100\n|vdelivermail '' delete\n", "- program-bounces"),
        (b"# not vdelivermail\n|exit 100\n", "- program-bounces"),
        (b"\n", "+ default-delivery"),
    ],
)
def test_the_host_s_default_delivery_takes_the_place_of_the_maildir(text: bytes, expected: str) -> None:
    disk = a_disk()
    disk.file(b"/q/control/defaultdelivery", text)
    assert says("bob@example.com", disk=disk, default_delivery="1", **bob()) == expected
    assert says("bob@example.com", disk=disk, **bob()) == "+ account"


def test_the_home_s_own_file_comes_before_the_default_delivery() -> None:
    disk = a_disk(dotqmail=b"ann\n")
    disk.file(b"/q/control/defaultdelivery", b"|exit 100\n")
    assert says("bob@example.com", disk=disk, default_delivery="1", **bob()) == "+ account-dotqmail"


def test_a_host_without_a_default_delivery_has_none() -> None:
    assert says("bob@example.com", default_delivery="1", **bob()) == "+ account"


# -- 7f: the maildir ----------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"", b"/tmp", b"/new"])
def test_a_maildir_that_is_missing_or_closed_defers(part: bytes) -> None:
    disk = a_disk()
    disk.directory(MAILDIR + part, mode=0o500 if part else 0o600, uid=UID)
    assert says("bob@example.com", disk=disk, **bob()) == "? maildir"
    disk.remove(MAILDIR + part)
    assert says("bob@example.com", disk=disk, **bob()) == "? maildir"


def test_a_maildir_without_cur_takes_mail() -> None:
    disk = a_disk()
    disk.remove(MAILDIR + b"/cur")
    assert says("bob@example.com", disk=disk, **bob()) == "+ account"


def test_a_home_that_is_no_path_is_a_mail_address() -> None:
    disk = a_disk()
    disk.directory(DD + b"/ann@example.org", uid=UID)  # "where it is", or the home would be missing
    assert says("bob@example.com", disk=disk, **bob(directory=b"ann@example.org")) == "+ account"


def test_a_home_that_begins_with_a_dot_is_where_vdelivermail_is() -> None:
    disk = a_disk()
    disk.directory(DD + b"/h", uid=UID)
    disk.maildir(DD + b"/h/h/Maildir", UID)
    # vdelivermail has entered ./h when it comes to the maildir ./h/Maildir
    assert says("bob@example.com", disk=disk, **bob(directory=b"./h")) == "+ account"
    disk.remove(DD + b"/h/h")
    assert says("bob@example.com", disk=disk, **bob(directory=b"./h")) == "? maildir"


# -- 6.3: quota ---------------------------------------------------------------------------------------


def full(limit: bytes = b"100S", size: bytes = FULL) -> dict[str, Any]:
    disk = a_disk()
    disk.file(MAILDIR + b"/maildirsize", size, uid=UID)
    return {"accounts": [account(quota=limit)], "disk": disk}


@pytest.mark.parametrize(
    ("policy", "expected"), [("temp", "? over-quota"), ("reject", "- over-quota"), ("accept", "+ account")]
)
def test_a_full_mailbox_is_answered_by_policy(policy: str, expected: str) -> None:
    assert says("bob@example.com", overquota=policy, **full()) == expected
    assert says("bob@example.com", overquota=policy, **full(b"NOQUOTA")) == "+ account"


def test_a_mailbox_is_full_when_this_message_is_too_much() -> None:
    for size, expected in (("900", "+ account"), ("901", "- over-quota")):
        assert says("bob@example.com", overquota="reject", message_bytes=size, **full(b"1000S")) == expected


def test_a_maildir_that_a_line_names_has_the_limit_of_its_own_maildirsize() -> None:
    for header, expected in ((b"100S", "- over-quota"), (b"NOQUOTA", "+ account-dotqmail")):
        disk = a_disk(dotqmail=b"./Maildir/\n")
        disk.file(MAILDIR + b"/maildirsize", header + b"\n100 1\n", uid=UID)
        assert says("bob@example.com", disk=disk, overquota="reject", **bob(quota=b"1S")) == expected


def test_a_full_mailbox_of_an_account_that_forwards_does_not_matter() -> None:
    world = full()
    world["disk"].file(DD + b"/bob/.qmail", b"ann\n", uid=UID)
    assert says("bob@example.com", overquota="reject", **world) == "+ account-dotqmail"


def test_over_quota_comes_before_a_maildir_that_cannot_take_mail() -> None:
    world = full()
    world["disk"].remove(MAILDIR + b"/new")
    assert says("bob@example.com", overquota="reject", **world) == "- over-quota"


def crowded(**limits: int) -> dict[str, Any]:
    """A domain with two messages of a megabyte in ann's maildir, and these limits."""
    disk = a_disk()
    home_of(disk, "ann")
    for name in (b"1", b"2"):
        disk.file(b"%s/ann/Maildir/cur/%s,S=1048576:2,S" % (DD, name), uid=UID)
    return {**bob(), "disk": disk, "limits": {EXAMPLE: Limits(0, **limits)}, "overquota": "reject"}


def test_domain_quotas_count_in_builds_that_have_them() -> None:
    for given, expected in (
        ({"diskquota": 2}, "- over-quota"),
        ({"diskquota": 3}, "+ account"),
        ({"maxmsgcount": 2}, "- over-quota"),
        ({"maxmsgcount": 3}, "+ account"),
        ({}, "+ account"),
    ):
        assert says("bob@example.com", domain_quotas="1", **crowded(**given)) == expected
        assert says("bob@example.com", **crowded(**given)) == "+ account"


def test_the_domain_quota_of_a_domain_that_is_not_known_is_none() -> None:
    line = b"|vdelivermail '' %s/bob\n" % DD
    assert says("bob@unknown.example", line, domain_quotas="1", **crowded(maxmsgcount=1)) == "+ catch-all"
    assert says("nobody@example.com", line, domain_quotas="1", **crowded(maxmsgcount=1)) == "- over-quota"


# -- 8: no account ------------------------------------------------------------------------------------


def catch_all(argument: str) -> bytes:
    return b"|vdelivermail '' %s\n" % argument.encode()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("bounce-no-mailbox", "- no-account"),
        ("'bounce-no-mailbox'", "- no-account"),
        ("Bounce-No-Mailbox", "+ catch-all"),
        ("delete", "- catch-all-delete"),
        ("'delete'", "- catch-all-delete"),
        ("Delete", "+ catch-all"),
        ("ann@example.org", "+ catch-all"),
        ("'&ann@example.org'", "+ catch-all"),
        ("''", "+ catch-all"),
        ("'#'", "+ catch-all"),
        (f"{DD.decode()}/bob", "+ catch-all"),
        (f"{DD.decode()}/bob/", "+ catch-all"),
        (f"{DD.decode()}/bob/Maildir", "? maildir"),
        ("/nowhere", "? maildir"),
        ("./bob/Maildir/", "+ catch-all"),
        ("./bob/Maildir", "? mbox"),
        ("./no/", "? maildir"),
        ("'|exit 100'", "- program-bounces"),
        ("'|exit 99'", "+ program"),
        ("'|exit 111'", "? program-defers"),
        ("'|some-program'", "+ catch-all"),
        ("'|vdelivermail x bounce-no-mailbox'", "- no-account"),
        ("'|vdelivermail x ann@example.org'", "+ catch-all"),
        ("'|vdelivermail x /nowhere'", "? maildir"),
        ("""'|vdelivermail x "|exit 99"'""", "+ program"),
    ],
)
def test_the_second_argument_decides_for_what_is_no_account(argument: str, expected: str) -> None:
    assert says("nobody@example.com", catch_all(argument)) == expected


def test_delete_is_accepted_where_the_policy_says_so() -> None:
    assert says("nobody@example.com", catch_all("delete"), delete="accept") == "+ catch-all-delete"


def test_the_catch_all_is_not_looked_at_for_an_account() -> None:
    for argument in ("bounce-no-mailbox", "delete", "/nowhere", "./no/"):
        assert says("bob@example.com", catch_all(argument), **bob()) == "+ account"


def test_a_catch_all_home_is_judged_by_its_own_qmail_file() -> None:
    line = catch_all(f"{DD.decode()}/bob")
    assert says("nobody@example.com", line, disk=a_disk(dotqmail=b"|exit 100\n")) == "- program-bounces"
    assert says("nobody@example.com", line, disk=a_disk(dotqmail=b"")) == "+ catch-all"
    disk = a_disk(dotqmail_x=b"|exit 100\n")
    assert says("no-x@example.com", line, disk=disk, **ext()) == "- program-bounces"
    assert says("no-x@example.com", line, disk=disk) == "+ catch-all"


def test_a_catch_all_home_has_no_quota_of_an_account() -> None:
    line = catch_all(f"{DD.decode()}/bob")
    for header, expected in ((b"100S", "- over-quota"), (b"NOQUOTA", "+ catch-all")):
        disk = a_disk()
        disk.file(MAILDIR + b"/maildirsize", header + b"\n100 1\n", uid=UID)
        assert says("nobody@example.com", line, disk=disk, overquota="reject") == expected


def test_where_a_catch_all_home_is_missing_the_domain_s_own_qmail_file_is_read() -> None:
    disk = a_disk()
    disk.file(DD + b"/.qmail", b"ann\n", uid=UID)
    assert says("nobody@example.com", catch_all("/nowhere"), disk=disk) == "+ account-dotqmail"
    assert says("nobody@example.com", catch_all("/nowhere")) == "? maildir"


# -- 5: the lines of the deciding file ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"&ann@example.org\n", "+ dotqmail-default"),
        (b"# comment\n", "+ dotqmail-default"),
        (b"|some-program\n", "+ dotqmail-default"),
        (b"|exit 0\n", "+ dotqmail-default"),
        (b"|exit 99\n|exit 100\n", "+ program"),
        (b"|exit 100\n", "- program-bounces"),
        (b"|exit 111\n", "? program-defers"),
        (b"|exit 2\n", "? program-defers"),
        (b"|exit 356\n", "- program-bounces"),
        (b"./Mailbox\n", "+ dotqmail-default"),
        (b"./bob/Maildir/\n", "+ dotqmail-default"),
        (b"%s/ \t\n" % MAILDIR, "+ dotqmail-default"),
        (b"./Maildir/\n", "? maildir"),
        (b"&ann\n./Maildir/\n|exit 100\n", "? maildir"),
        (b"&ann\n|exit 100\n./Maildir/\n", "- program-bounces"),
        (b"", "? maildir"),
        (b"# c\n\n  \n" + BOUNCE, "- no-account"),
        (BOUNCE + b"&ann\n", "- no-account"),
        (b"&ann\n" + BOUNCE, "- no-account"),
        (b"|exit 99\n" + BOUNCE, "+ program"),
        (b"|exit 111\n" + BOUNCE, "? program-defers"),
        (b"./no\0/\n", "? maildir"),
        (b"./bob/Maildir/\0/\n", "+ dotqmail-default"),
        (b"|exit 100\0\n", "- program-bounces"),
        (BOUNCE[:-1] + b"\0x\n", "- no-account"),
        (catch_all("ann") + BOUNCE, "- no-account"),
        (catch_all("ann") + catch_all("ann"), "+ catch-all"),
        (catch_all("ann") + b"./no/\n", "? maildir"),
        (catch_all("'|exit 99'") + BOUNCE, "+ program"),
        (catch_all("""'|vdelivermail x "|exit 99"'""") + BOUNCE, "+ program"),
    ],
)
def test_in_a_vpopmail_domain_each_line_is_processed_in_order(lines: bytes, expected: str) -> None:
    assert says("nobody@example.com", lines) == expected


def test_an_empty_file_is_the_default_delivery_into_the_domain_s_own_maildir() -> None:
    disk = a_disk()
    disk.maildir(DD + b"/Maildir", UID)
    assert says("nobody@example.com", b"", disk=disk) == "+ dotqmail-default"


def test_a_file_of_its_own_is_not_a_default() -> None:
    assert says(delivery("list@example.com", b"&ann\n", file=b".qmail-list")) == "+ dotqmail"


def test_a_file_without_vdelivermail_wins_over_a_locked_account() -> None:
    of = delivery("bob@example.com", b"&ann\n", file=b".qmail-bob")
    assert says(of, **bob(flags=Flag.BOUNCE_MAIL)) == "+ dotqmail"


def test_relative_lines_begin_in_the_home_and_those_of_a_catch_all_in_the_domain_s_directory() -> None:
    assert says("bob@example.com", disk=a_disk(dotqmail=b"./Maildir/\n"), **bob()) == "+ account-dotqmail"
    assert says("nobody@example.com", catch_all("./Maildir/")) == "? maildir"


def test_a_file_that_cannot_be_read_is_no_answer() -> None:
    of = delivery("bob@example.com")
    unread = of._replace(file=of.file._replace(file=DotQmail(0o600, None)))
    assert says(unread, **bob()) == "? dotqmail-unread"


# -- scope --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "user",
    [
        {"key": b"!example.com\0"},
        {"key": b"!"},
        {"key": None},
        {"key": b"!example.com+", "dash": b"+"},
        {"dash": b""},
        {"name": b"example"},
        {"ext": b"more-bob"},
    ],
)
def test_a_record_that_is_not_a_domain_s_leaves_all_lines_to_qmail_but_vdelivermail_s(user: dict[str, Any]) -> None:
    for lines in (b"./no/\n", b"|exit 100\n", b"", b"&ann\n"):
        assert says(delivery("bob@example.com", lines, **user)) == "qmail's own"
        assert says("bob@example.com", lines) != "qmail's own"
    for address, expected in (("bob@example.com", "+ account"), ("nobody@example.com", "- no-account")):
        assert says(delivery(address, b"|exit 100\n./no/\n" + BOUNCE, **user), **bob()) == expected


def test_an_empty_local_part_in_a_domain_s_record_is_in_scope() -> None:
    assert is_domain_record(delivery("@example.com").user, b"example.com-")


# -- rules of the older checks ------------------------------------------------------------------------


def test_chkusr_s_rule_checks_only_domains_that_bounce() -> None:
    assert says("nobody@example.com", BOUNCE, check="bounce") == "- no-account"
    for lines in (catch_all("delete"), b"|exit 100\n", b"", b"./no/\n"):
        assert says("nobody@example.com", lines, check="bounce") == "+ unchecked"
    of = delivery("list@example.com", b"|exit 100\n", file=b".qmail-list")
    assert says(of, check="bounce") == "- program-bounces"


def test_tmda_s_rule_tries_every_dash_from_the_left() -> None:
    two = [account("a", flags=Flag.BOUNCE_MAIL), account("a-b")]
    assert says("a-b-c@example.com", accounts=two, tmda="1") == "- locked"
    assert says("a-b-c@example.com", accounts=two[1:], tmda="1") == "+ tmda"
    assert says("a-b-c@example.com", accounts=two[1:]) == "- no-account"
    assert says("abc@example.com", accounts=two, tmda="1") == "- no-account"


def test_the_ezmlm_rule_takes_a_directory_with_an_editor_for_a_list() -> None:
    disk = a_disk()
    disk.file(DD + b"/list/editor", uid=UID)
    assert says("list-help@example.com", disk=disk, ezmlm_directory="1") == "+ ezmlm-directory"
    assert says("list-a-b@example.com", disk=disk, ezmlm_directory="1") == "+ ezmlm-directory"
    for address, setting in (("list-help", "0"), ("list", "1"), ("lis-help", "1")):
        assert says(f"{address}@example.com", disk=disk, ezmlm_directory=setting) == "- no-account"


# -- no end -------------------------------------------------------------------------------------------


def test_a_home_whose_file_runs_vdelivermail_again_never_ends() -> None:
    assert says("bob@example.com", disk=a_disk(dotqmail=BOUNCE), **bob()) == "? vdelivermail-loop"


def test_vdelivermail_is_followed_so_often_and_no_further() -> None:
    assert says("nobody@example.com", catch_all("ann") * RUNS) == "+ catch-all"
    assert says("nobody@example.com", catch_all("ann") * (RUNS + 1)) == "? vdelivermail-loop"


def test_a_maildir_is_judged_once_however_many_lines_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    disk = a_disk(dotqmail=b"./Maildir/\n&ann@example.com\n#\n" * 10_000)
    find = disk.find

    def counted(path: bytes, rights: Rights) -> Any:
        asked.append(path)
        return find(path, rights)

    monkeypatch.setattr(disk, "find", counted)
    assert says("bob@example.com", disk=disk, **bob()) == "+ account-dotqmail"
    assert len(asked) < 50


def many(count: int) -> bytes:
    """So many different lines, each of which succeeds."""
    return b"".join(b"|x vdelivermail %d\n" % number for number in range(count))


def test_so_many_lines_are_followed_and_no_more() -> None:
    enough = many(ACTIONS - 1)  # with the one that runs vdelivermail
    assert says("bob@example.com", disk=a_disk(dotqmail=enough), **bob()) == "+ account-dotqmail"
    assert says("bob@example.com", disk=a_disk(dotqmail=enough + b"./Maildir/\n"), **bob()) == "? too-many-lines"
    assert says("sales@example.com", many(ACTIONS + 1), file=b".qmail-sales") == "? too-many-lines"
    assert says("x@example.com", **aliased("x", lines=many(ACTIONS + 1).splitlines())) == "? too-many-lines"


def test_lines_of_many_files_are_counted_together() -> None:
    lines = BOUNCE + many(ACTIONS // 2)
    disk = a_disk(dotqmail=many(ACTIONS // 2 - 1).upper())
    assert says("bob@example.com", lines, disk=disk, **bob()) == "+ account-dotqmail"
    disk.file(DD + b"/bob/.qmail", many(ACTIONS // 2).upper(), uid=UID)
    assert says("bob@example.com", lines, disk=disk, **bob()) == "? too-many-lines"


def test_of_lines_that_are_the_same_there_is_an_end_too() -> None:
    disk = a_disk(dotqmail=b"|x\n" * REPEATED)
    assert says("bob@example.com", disk=disk, **bob()) == "? too-many-lines"


def test_no_line_of_a_file_is_shown() -> None:
    """A user's .qmail may be a link to a file that he cannot read himself."""
    disk = a_disk(dotqmail=b"/run/postgresql|5432|vpopmail|the-password|vpopmail\n")
    with pytest.raises(Unavailable) as error:
        outcome("bob@example.com", disk=disk, **bob())
    assert (error.value.reason, error.value.where) == ("mbox", DD + b"/bob/.qmail")
    assert "the-password" not in repr(error.value)


# -- facts --------------------------------------------------------------------------------------------


def test_the_outcome_says_whose_mail_it_is() -> None:
    found = outcome("BOB@alias.example", **bob())
    assert found is not None
    assert found.account is not None
    assert (found.account.name, found.domain) == (b"bob", EXAMPLE)
    nobody = outcome("nobody@example.com", catch_all("ann"))
    assert nobody is not None
    assert (nobody.answer.verdict, nobody.account, nobody.domain) == (Verdict.ACCEPTED, None, None)
