"""Who controls a local part: users/cdb and the password file as dicts."""

from __future__ import annotations

import pytest

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.users import NOBODY, Account, User, assigned, check, getpw

# -- users/cdb ----------------------------------------------------------------------------------------


def record(user: bytes = b"u", home: bytes = b"/h", dash: bytes = b"", ext: bytes = b"", end: bytes = b"") -> bytes:
    return b"\0".join([user, b"1", b"2", home, dash, ext]) + end


def owner(local: bytes, table: dict[bytes, bytes]) -> bytes | None:
    found = assigned(local, table)
    return found and found.name


def test_an_exact_entry_gives_the_whole_record() -> None:
    data = b"joe\x005001\x005002\0/home/joe\0-\0news"
    assert assigned(b"joe-news", {b"": b"", b"!joe-news\0": data}) == User(
        b"joe", 5001, 5002, b"/home/joe", b"-", b"news", b"!joe-news\0"
    )


def test_a_prefix_entry_gets_the_rest_as_it_was_written() -> None:
    user = assigned(b"Joe-News.X", {b"": b"-", b"!joe-": record(dash=b"-", ext=b"list-")})
    assert user is not None
    assert (user.dash, user.ext, user.key) == (b"-", b"list-News.X", b"!joe-")


def test_names_are_looked_up_in_lower_case() -> None:
    assert owner(b"JOE", {b"": b"", b"!joe\0": record(b"joe")}) == b"joe"


def test_only_the_26_letters_have_a_lower_case() -> None:
    assert owner(b"J\xd6E", {b"": b"", b"!j\xf6e\0": record()}) is None


ORDER = {
    b"": b"-+",
    b"!joe-a-b\0": record(b"exact"),
    b"!joe-a-": record(b"longer"),
    b"!joe-": record(b"shorter"),
    b"!joe-a": record(b"never"),  # "a" is no break byte
    b"!ann+": record(b"plus"),
    b"!": record(b"catch-all"),
}


@pytest.mark.parametrize(
    ("local", "user"),
    [
        (b"joe-a-b", b"exact"),
        (b"joe-a-c", b"longer"),
        (b"joe-a-", b"longer"),  # a prefix may be the whole local part
        (b"joe-a-b-", b"longer"),
        (b"joe-b", b"shorter"),
        (b"joe-a", b"shorter"),
        (b"joe", b"catch-all"),
        (b"ann+x", b"plus"),
        (b"ann-x", b"catch-all"),
        (b"-", b"catch-all"),
        (b"joe-a-b\xff", b"longer"),
    ],
)
def test_the_exact_entry_then_the_longest_prefix_then_the_catch_all(local: bytes, user: bytes) -> None:
    assert owner(local, ORDER) == user


@pytest.mark.parametrize(("breaks", "user"), [(b"", None), (b"+", None), (b"-", b"u"), (b"+-", b"u"), (b"--", b"u")])
def test_a_prefix_ends_at_a_break_byte_of_the_database_and_nowhere_else(breaks: bytes, user: bytes | None) -> None:
    assert owner(b"joe-x", {b"": breaks, b"!joe-": record()}) == user


def test_a_break_byte_can_be_any_byte() -> None:
    assert owner(b"joe\xffx", {b"": b"\xff", b"!joe\xff": record()}) == b"u"


def test_a_break_byte_that_is_a_capital_never_matches() -> None:
    assert owner(b"joeXy", {b"": b"X", b"!joex": record()}) is None


def test_the_catch_all_needs_no_break_byte() -> None:
    assert owner(b"anybody", {b"": b"", b"!": record()}) == b"u"


def test_nothing_found_sends_qmail_to_the_password_file() -> None:
    assert assigned(b"joe", {b"": b"-"}) is None


def test_a_database_without_an_empty_key_determines_nothing_of_anybody() -> None:
    with pytest.raises(Unavailable) as error:
        assigned(b"joe", {b"!joe\0": record(), b"!": record()})
    assert error.value.reason == "cdb-no-break-list"


def test_an_empty_list_of_break_bytes_is_a_list() -> None:
    assert owner(b"joe", {b"": b"", b"!joe\0": record()}) == b"u"


@pytest.mark.parametrize("data", [b"", b"joe", b"joe\x001\x002\0/h\0-", b"joe\x001\x002\0/h"])
@pytest.mark.parametrize("key", [b"!joe\0", b"!j"])
def test_a_record_with_too_few_fields_is_a_temporary_failure_and_ends_the_search(data: bytes, key: bytes) -> None:
    with pytest.raises(Unavailable) as error:
        assigned(b"joe", {b"": b"j", key: data, b"!": record()})
    assert error.value.reason == "cdb-record"


def test_a_record_of_six_fields_may_end_without_a_nul() -> None:
    assert owner(b"joe", {b"": b"", b"!joe\0": record(ext=b"x")}) == b"u"


def test_fields_after_the_sixth_are_ignored() -> None:
    user = assigned(b"joe", {b"": b"", b"!joe\0": record(ext=b"x", end=b"\0more\0and more")})
    assert user is not None
    assert user.ext == b"x"


def test_a_nul_behind_the_ext_of_a_prefix_entry_hides_the_rest() -> None:
    user = assigned(b"joe-rest", {b"": b"-", b"!joe-": record(ext=b"x", end=b"\0")})
    assert user is not None
    assert user.ext == b"x"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"5001", 5001),
        (b"5001x", 5001),
        (b"0x10", 0),
        (b"007", 7),
        (b"", 0),
        (b"joe", 0),
        (b"-5", 0),
        (b" 5", 0),
        (b"+5", 0),
        (b"\xb2", 0),  # a digit in Latin-1
        (b"4294967295", 4294967295),
        (b"4294967296", 0),
        (b"4294972297", 5001),
        (b"1" * 19, int("1" * 19) % 2**32),
        (b"1" * 20, int("1" * 20) % 2**32),
        (b"9" * 400 + b"x9", int("9" * 400) % 2**32),
        (b"1" * 5000, int("1" * 4000) * 10**1000 % 2**32 + int("1" * 1000) % 2**32 & 0xFFFFFFFF),
    ],
)
def test_an_id_is_the_leading_digits_in_32_bits(text: bytes, number: int) -> None:
    user = assigned(b"joe", {b"": b"", b"!joe\0": b"\0".join([b"joe", text, text, b"/h", b"", b""])})
    assert user is not None
    assert (user.uid, user.gid) == (number, number)


def test_the_fields_of_a_record_keep_their_case_and_bytes() -> None:
    user = assigned(b"joe", {b"": b"", b"!joe\0": record(b"J\xf6e", b"/H/\xff", b"-/", b"A.b")})
    assert user == User(b"J\xf6e", 1, 2, b"/H/\xff", b"-/", b"A.b", b"!joe\0")


# -- the password file --------------------------------------------------------------------------------

ALIAS = Account(5090, 5099, b"/alias")
ACCOUNTS = {
    b"alias": ALIAS,
    b"joe": Account(1, 10, b"/joe"),
    b"joe-x": Account(2, 20, b"/joe-x"),
    b"root": Account(0, 0, b"/root"),
    b"moved": Account(3, 3, b"/missing"),
    b"robbed": Account(4, 4, b"/joe"),
    b"homeless": Account(5, 5, b""),
    b"Capital": Account(6, 6, b"/capital"),
    b"relative": Account(7, 7, b"home"),
    b"x" * 31: Account(8, 8, b"/31"),
    b"x" * 32: Account(9, 9, b"/32"),
}
OWNERS = {
    b"/alias": 5090, b"/joe": 1, b"/joe-x": 2, b"/root": 0, b"/capital": 6, b"home": 7, b"/31": 8, b"/32": 9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("local", "name", "dash", "ext"),
    [
        (b"joe", b"joe", b"", b""),
        (b"JOE", b"joe", b"", b""),
        (b"joe-", b"joe", b"-", b""),
        (b"joe-News.X", b"joe", b"-", b"News.X"),
        (b"joe-a-b", b"joe", b"-", b"a-b"),
        (b"joe--a", b"joe", b"-", b"-a"),
        (b"joe-x", b"joe-x", b"", b""),  # the longer name wins
        (b"joe-x-y", b"joe-x", b"-", b"y"),
        (b"joe-xy", b"joe", b"-", b"xy"),
        (b"joe+a", b"alias", b"-", b"joe+a"),
        (b"nobody", b"alias", b"-", b"nobody"),
        (b"No-Body", b"alias", b"-", b"No-Body"),
        (b"-joe", b"alias", b"-", b"-joe"),
        (b"-", b"alias", b"-", b"-"),
        (b"alias", b"alias", b"", b""),  # an ordinary name as well
        (b"alias-x", b"alias", b"-", b"x"),
        (b"capital", b"alias", b"-", b"capital"),
        (b"Capital", b"alias", b"-", b"Capital"),
        (b"root", b"alias", b"-", b"root"),
        (b"moved", b"alias", b"-", b"moved"),
        (b"robbed", b"alias", b"-", b"robbed"),
        (b"homeless-x", b"alias", b"-", b"homeless-x"),
        (b"relative", b"relative", b"", b""),
        (b"x" * 31, b"x" * 31, b"", b""),
        (b"x" * 31 + b"-y", b"x" * 31, b"-", b"y"),
        (b"x" * 32, b"alias", b"-", b"x" * 32),
        (b"joe-" + b"y" * 100, b"joe", b"-", b"y" * 100),
    ],
)
def test_the_longest_acceptable_account_controls(local: bytes, name: bytes, dash: bytes, ext: bytes) -> None:
    assert getpw(local, ACCOUNTS, OWNERS) == User(name, *ACCOUNTS[name], dash, ext)


@pytest.mark.parametrize("bad", [Account(0, 0, b"/joe"), Account(1, 1, b"/missing"), Account(2, 2, b"/joe")])
def test_an_unacceptable_account_gives_way_to_a_shorter_one(bad: Account) -> None:
    accounts = {b"joe": Account(1, 1, b"/joe"), b"joe-x": bad}
    assert getpw(b"joe-x-y", accounts, {b"/joe": 1}).ext == b"x-y"


def test_a_home_that_root_owns_makes_nobody_of_uid_zero() -> None:
    assert getpw(b"root", ACCOUNTS, {**OWNERS, b"/root": 0}).name == b"alias"


def test_alias_is_not_checked_when_it_is_the_last_resort() -> None:
    assert getpw(b"nobody", {b"alias": Account(0, 5, b"nowhere")}, {}) == User(
        b"alias", 0, 5, b"nowhere", b"-", b"nobody"
    )


def test_alias_itself_is_checked_when_it_is_asked_for_by_name() -> None:
    assert getpw(b"alias-x", {b"alias": ALIAS}, {}).ext == b"alias-x"


def test_without_an_alias_account_nothing_can_be_determined() -> None:
    with pytest.raises(Unavailable) as error:
        getpw(b"nobody", {}, {})
    assert error.value.reason == "no-alias"


def test_an_owner_that_is_unknown_is_a_temporary_failure_and_ends_the_search() -> None:
    class Broken:
        def get(self, _home: bytes, /) -> int | None:
            raise Unavailable("passwd-home")

    with pytest.raises(Unavailable):
        getpw(b"joe", ACCOUNTS, Broken())


def test_the_break_character_and_alias_are_the_builds() -> None:
    accounts = {b"joe": Account(1, 1, b"/joe"), b"lost": ALIAS}
    assert getpw(b"joe+x-y", accounts, {b"/joe": 1}, b"+", b"lost") == User(b"joe", 1, 1, b"/joe", b"-", b"x-y")
    assert getpw(b"joe-x", accounts, {b"/joe": 1}, b"+", b"lost") == User(b"lost", *ALIAS, b"-", b"joe-x")


def test_names_of_32_bytes_and_more_are_not_even_asked_for() -> None:
    asked = []

    class Noting:
        def get(self, name: bytes, /) -> Account | None:
            asked.append(name)
            return ALIAS if name == b"alias" else None

    getpw(b"a" * 31 + b"-" + b"b", Noting(), {})
    getpw(b"a" * 32 + b"-b", Noting(), {})
    assert asked == [b"a" * 31, b"alias", b"alias"]


# -- becoming the user --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("uid", "gid", "reason"),
    [(0, 0, "uid-zero"), (0, 5, "uid-zero"), (NOBODY, 5, "bad-id"), (5, NOBODY, "bad-id"), (0, NOBODY, "bad-id")],
)
@pytest.mark.parametrize("home", [b"/h", b"h"])
def test_ids_that_qmail_does_not_take_are_an_error(uid: int, gid: int, reason: str, home: bytes) -> None:
    with pytest.raises(Unavailable) as error:
        check(User(b"joe", uid, gid, home, b"", b""))
    assert error.value.reason == reason


@pytest.mark.parametrize(
    ("home", "good"), [(b"/h", True), (b"/", True), (b"h", False), (b"", False), (b" /h", False), (b"./h", False)]
)
def test_a_home_must_be_absolute(home: bytes, good: bool) -> None:
    assert check(User(b"joe", 1, 1, home, b"", b"")) is good


def test_the_group_of_root_will_do() -> None:
    assert check(User(b"joe", 1, 0, b"/h", b"", b""))
