"""Control files, .qmail files and log lines of any content."""

from __future__ import annotations

import json

import strategies
from hypothesis import given
from hypothesis import strategies as st

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.escape import escape, escape_text
from cvm_qmail.observe.log import as_line, mark_of
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.service.events import Event
from cvm_qmail.tables import control

# -- control files ------------------------------------------------------------------------------------

contents = st.none() | strategies.files


@given(st.tuples(contents, contents, contents, contents, contents))
def test_control_files_of_any_content_are_tables_or_a_temporary_failure(files: tuple[bytes | None, ...]) -> None:
    try:
        found = control.parse(*files)
    except Unavailable:
        assert files[0] is None
        assert files[2] is None
        return
    for table in (found.locals, found.percenthack, found.virtualdomains):
        assert isinstance(table, dict)
        assert all(name == name.lower() and not {0, 10} & set(name) for name in table)
    assert b"\n" not in found.envnoathost


@given(strategies.files)
def test_no_entry_holds_what_separates_entries(text: bytes) -> None:
    assert all(b"\n" not in entry and b"\0" not in entry for entry in control.entries(text))
    assert control.entries(text + b"\n") == control.entries(text)


@given(strategies.files, strategies.files, strategies.names, st.none() | strategies.names)
def test_every_address_has_a_way(locals_: bytes, virtualdomains: bytes, account: bytes, domain: bytes | None) -> None:
    controls = control.parse(b"me\n", None, locals_, b"hack\nexample.org\n", virtualdomains)
    address = domains.complete(Recipient(account, domain), controls.envnoathost)
    route = domains.rewrite(address, controls)
    if isinstance(route, domains.Local) and route.table == "virtualdomains":
        assert b"-" in route.local
    assert b"@" not in route.host


@given(st.binary(max_size=300))
def test_percenthack_ends_and_only_ever_shortens(account: bytes) -> None:
    everything = dict.fromkeys([account[i:j].lower() for i in range(5) for j in range(i, 12)] + [b"hack"], True)
    controls = domains.Controls(b"", {}, everything, {b"": b"all"})
    route = domains.rewrite(account + b"@hack", controls)
    assert len(route.local + route.host) <= len(account + b"hack" + b"all-")


# -- users --------------------------------------------------------------------------------------------


@given(strategies.names, st.dictionaries(strategies.keys, st.binary(max_size=40)), st.binary(max_size=4))
def test_any_users_cdb_gives_a_user_or_nobody_or_a_temporary_failure(
    local: bytes, table: dict[bytes, bytes], breaks: bytes
) -> None:
    try:
        user = users.assigned(local, {**table, b"": breaks})
    except Unavailable:
        return
    if user is not None:
        assert 0 <= user.uid < 2**32
        assert 0 <= user.gid < 2**32
        assert user.key in table


@given(strategies.names, st.dictionaries(st.binary(max_size=4), st.integers(0, 3)))
def test_dash_and_ext_of_an_account_make_up_the_local_part(local: bytes, uids: dict[bytes, int]) -> None:
    accounts = {name: users.Account(uid, 1, b"/" + name) for name, uid in uids.items()}
    owners = {account.home: account.uid for account in accounts.values()}
    user = users.getpw(local, {b"alias": users.Account(9, 9, b"/alias"), **accounts}, owners)
    if user.name in accounts and user.name != b"alias":
        assert (user.name + user.dash + user.ext).lower() == local.lower()
        assert user.uid
    else:
        assert user.ext in (local, b"") or local.lower().startswith(b"alias-")


# -- .qmail files -------------------------------------------------------------------------------------


@given(st.sampled_from([b"", b"-", b"--", b"+"]), strategies.names)
def test_the_names_of_qmail_files_are_bounded_and_stay_in_the_home(dash: bytes, ext: bytes) -> None:
    tried = list(dotqmail.names(dash, ext))
    assert len(tried) == ext.count(b"-") + 2
    assert [default for _, default in tried] == [False] + [True] * (len(tried) - 1)
    assert tried[-1][0] == b".qmail" + dash + b"default"
    for name, _ in tried:
        assert name.startswith(b".qmail" + dash)
        assert b".." not in name[6:]


@given(strategies.files, st.sampled_from([0o644, 0o744]))
def test_any_content_is_judged_and_a_bare_comment_before_it_is_no_blank_line(content: bytes, mode: int) -> None:
    def judged(text: bytes) -> str:
        found = dotqmail.Found(b".qmail", dotqmail.DotQmail(mode, text), default=False)
        try:
            dotqmail.judge_start(found)
            dotqmail.judge_list(found)
        except Unavailable as error:
            return error.reason
        return ""

    assert judged(content) in ("", "dotqmail-blank", "dotqmail-forward-only")
    assert judged(b"#\n" + content) in ("", "dotqmail-forward-only")
    if not any(line[:1] in b"./|" for line in content.split(b"\n") if line):
        assert judged(b"#\n" + content) == ""
    assert all(line and not line.startswith((b"#", b"\0")) for line in dotqmail.lines(content))


# -- the log ------------------------------------------------------------------------------------------


@given(st.binary())
def test_escaped_bytes_are_printable_and_without_blanks_and_nothing_is_lost(text: bytes) -> None:
    escaped = escape(text)
    assert all("!" <= character <= "~" for character in escaped)
    assert escaped.encode().decode("unicode_escape").encode("latin-1") == text


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\")))
def test_safe_bytes_stay_as_they_are(text: str) -> None:
    assert escape(text.encode()) == escape_text(text) == text


@given(strategies.texts)
def test_escaped_text_is_printable(text: str) -> None:
    assert all(" " <= character <= "~" for character in escape_text(text))


@given(strategies.events, st.floats(0, 1e6))
def test_an_event_is_always_one_line_that_begins_as_the_c_programs_does(event: Event, seconds: float) -> None:
    line = as_line(event, seconds)
    assert line.isascii()
    assert line.isprintable()
    mark, address, _user, reason, *_ = line.split(" ")
    account, domain = event.query.recipient
    assert (mark, reason) == (mark_of(event.outcome), event.outcome.reason)
    assert address == (escape(account) + ("" if domain is None else "@" + escape(domain)) or "-")


@given(strategies.events, st.floats(0, 1e6))
def test_an_event_is_always_one_json_object_on_one_line(event: Event, seconds: float) -> None:
    line = as_line(event, seconds, "json")
    assert line.isprintable()
    assert json.loads(line)["account"] == escape(event.query.recipient.account)
