"""CVM_DRY_RUN: what would be rejected is accepted and logged; nothing else changes."""

from __future__ import annotations

import json
from pathlib import Path

import memory
import pytest
from hosts import ALIAS_UID, Host, as_bytes, load, systems
from serving import Server, request, run, serving
from test_corpus_plain import needs_files

from cvm_qmail.answer import DRY_RUN, Answer, Facts, Unavailable, Verdict
from cvm_qmail.observe.log import mark_of
from cvm_qmail.pipeline import Respond, make_service
from cvm_qmail.plugin import Delivery
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Fact
from cvm_qmail.protocols.cvm.responder import responder
from cvm_qmail.service.dry_run import dry_run_facts
from cvm_qmail.service.events import Event

REFUSED = {int(Fact.OUTOFSCOPE): b"0"}


def responding(world: memory.Memory, events: list[Event], *programs: memory.Program, **variables: str) -> Respond:
    """A responder over a host in memory, in a dry run if the variables say so."""
    variables = {"CVM_LOOKUP_SECRET": "", **variables}
    settings, tables = memory.settings(**variables), memory.tables(world)
    answer = make_service(tables, memory.module(world, programs, **variables), settings)
    return memory.recording(responder(answer, b""), events)


def dry(world: memory.Memory, address: str, *programs: memory.Program, **more: str) -> tuple[packets.Response, Event]:
    """What a client gets in a dry run, and what is logged."""
    events: list[Event] = []
    account, _, domain = address.encode("latin-1").rpartition(b"@")
    respond = responding(world, events, *programs, CVM_DRY_RUN="1", **more)
    response = packets.parse_response(respond(memory.request(account=account, domain=domain)))
    return response, events[0]


def test_a_rejection_is_accepted_with_the_facts_of_whose_address_it_would_be() -> None:
    response, event = dry(memory.small(), "Joe-Nope@Example.org")
    assert response.code == 0
    home = memory.JOE.home
    assert dict(response.facts) == {
        1: b"joe",
        2: b"5001",
        3: b"5002",
        5: home,
        9: b"joe",
        10: home,
        14: b"example.org",
        15: home,
    }
    assert mark_of(event.outcome) == "+"
    outcome = event.outcome
    assert (outcome.user, outcome.reason, outcome.where) == (b"joe", "no-mailbox", home)
    assert outcome.detail == DRY_RUN


@pytest.mark.parametrize("address", ["joe@example.org", "foo@v.example", "postmaster@example.org"])
def test_an_acceptance_is_the_same_and_says_nothing_of_a_dry_run(address: str) -> None:
    response, event = dry(memory.small(), address)
    assert (response.code, mark_of(event.outcome), event.outcome.detail) == (0, "+", "")


@pytest.mark.parametrize("address", ["joe@elsewhere.example", "joe@not.v.example"])
def test_what_is_out_of_scope_stays_out_of_scope(address: str) -> None:
    response, event = dry(memory.small(), address)
    assert (response.code, dict(response.facts), mark_of(event.outcome)) == (100, {16: b"1"}, "-")


def test_an_error_stays_an_error() -> None:
    world = memory.small(homes={memory.JOE.home: memory.home(mode=0o40757)})
    response, event = dry(world, "joe-nope@example.org")
    assert (response.code, response.facts, event.outcome.reason) == (4, (), "home-writable")


def test_what_no_mail_can_be_addressed_to_is_not_waved_through() -> None:
    for address in ("jo\0e@example.org", "joe@exam\0ple.org"):
        response, event = dry(memory.small(), address)
        assert (response.code, dict(response.facts), mark_of(event.outcome), event.outcome.reason) == (
            100,
            REFUSED,
            "-",
            "nul",
        )


def test_where_the_module_does_not_say_whose_it_would_be_the_alias_account_lends_its_facts() -> None:
    world = memory.small()
    facts_for = dry_run_facts(memory.tables(world), memory.settings(CVM_LOOKUP_SECRET="", CVM_DRY_RUN="1"))
    facts = facts_for(memory.Recipient(b"joe", b"V.example"), None)
    assert facts is not None
    assert (facts.username, facts.userid, facts.directory, facts.domain) == (
        b"alias",
        memory.ALIAS.uid,
        memory.ALIAS.home,
        b"v.example",
    )


def test_without_an_alias_account_there_are_no_facts_to_lend_and_it_is_a_temporary_failure() -> None:
    world = memory.small(accounts={b"joe": memory.JOE})
    facts_for = dry_run_facts(memory.tables(world), memory.settings(CVM_LOOKUP_SECRET="", CVM_DRY_RUN="1"))
    with pytest.raises(Unavailable) as error:
        facts_for(memory.Recipient(b"joe", b"example.org"), None)
    assert error.value.reason == "no-alias"


def test_a_plug_ins_rejection_is_accepted_like_any_other() -> None:
    def refusing(_: Delivery) -> Answer:
        return Answer(Verdict.REJECTED, "db-no-mailbox", where=b"/db")

    response, event = dry(memory.small(), "joe-foo@example.org", refusing)
    assert (response.code, dict(response.facts)[1]) == (0, b"joe")
    assert (event.outcome.reason, event.outcome.where, event.outcome.detail) == ("db-no-mailbox", b"/db", DRY_RUN)


def test_a_plug_in_may_say_with_which_facts() -> None:
    facts = Facts(b"virtual", 89, 89, directory=b"/home/vpopmail")

    def refusing(_: Delivery) -> Answer:
        return Answer(Verdict.REJECTED, "db-no-mailbox", facts=facts)

    response, _ = dry(memory.small(), "joe-foo@example.org", refusing)
    assert dict(response.facts) == {1: b"virtual", 2: b"89", 3: b"89", 5: b"/home/vpopmail"}


@pytest.mark.parametrize("path", [p for p in systems("qmail") if not needs_files(load(p))], ids=lambda path: path.stem)
def test_of_the_whole_corpus_only_rejections_change(path: Path) -> None:
    system = load(path)
    honest = responding(memory.from_corpus(system), [])
    pardoning = responding(memory.from_corpus(system), [], CVM_DRY_RUN="1")
    for case in system["cases"]:
        given = {"account": as_bytes(case["local"])}
        if case["domain"] is not None:
            given["domain"] = as_bytes(case["domain"])
        packet = memory.request(**given)
        before, after = honest(packet), pardoning(packet)
        if dict(packets.parse_response(before).facts) != REFUSED or b"\0" in b"".join(given.values()):
            assert after == before
        else:
            code, _, facts = packets.parse_response(after)
            assert code == 0
            assert {1, 2, 3, 5} <= dict(facts).keys()


# -- a server ---------------------------------------------------------------------------------------


def codes(server: Server, *accounts: str) -> list[int]:
    return [server.ask(account).code for account in accounts]


@pytest.mark.root
def test_a_server_accepts_and_logs_what_it_would_refuse(host: Host) -> None:
    with serving(host, CVM_DRY_RUN="1") as server:
        server.warned("warning: CVM_DRY_RUN is set: nothing is rejected; what would be rejected is logged")
        assert codes(server, "joe", "joe-nope", "nobody") == [0, 0, 0]
        assert server.ask("joe", "elsewhere.example").code == 100
        line = server.logged("+ nobody@example.org alias no-mailbox")
        assert line.endswith("us dry run: this would be rejected")
        assert dict(server.ask("nobody").facts)[Fact.USERID] == str(ALIAS_UID).encode()
        assert "dry run" not in server.logged("+ joe@example.org")


@pytest.mark.root
def test_an_answer_from_memory_is_no_different_and_a_change_is_seen(host: Host) -> None:
    with serving(host, CVM_DRY_RUN="1", CVM_WORKERS="1") as server:
        answers = {server.send(request("joe-new")) for _ in range(5)}
        assert {answer[0] for answer in answers} == {0}
        assert len(answers) == 1
        host.file("home/joe/.qmail-new", uid=5001, gid=5001)
        server.send(request("joe-new"))
        server.logged("+ joe-new@example.org joe dotqmail ")
        lines = [line for line in server.log.read_text().splitlines() if "joe-new" in line]
    assert [("dry run" in line) for line in lines] == [True] * 5 + [False]


@pytest.mark.root
def test_in_json_it_is_the_detail(host: Host) -> None:
    with serving(host, CVM_DRY_RUN="1", CVM_LOG="json") as server:
        server.ask("nobody")
        said = json.loads(server.logged('"nobody"'))
    assert (said["result"], said["code"], said["reason"], said["detail"]) == ("+", 0, "no-mailbox", DRY_RUN)


@pytest.mark.root
def test_without_an_argument_it_is_said_on_standard_error(host: Host) -> None:
    done = run(host=host, data=request("nobody"), CVM_DRY_RUN="1")
    assert done.returncode == 0
    assert b"+ nobody@example.org alias no-mailbox" in done.stderr
    assert DRY_RUN.encode() in done.stderr


@pytest.mark.root
def test_a_wrong_secret_is_as_wrong_as_ever(host: Host) -> None:
    with serving(host, CVM_DRY_RUN="1", CVM_LOOKUP_SECRET="s3same") as server:
        assert server.ask("nobody").code == 7
        assert server.ask("nobody", secret=b"wrong").code == 7
        assert server.ask("nobody", secret=b"s3same").code == 0


@pytest.mark.root
def test_where_passwords_are_checked_there_is_no_dry_run(host: Host) -> None:
    for arguments in ((), ("cvm-local:/nowhere/s",)):
        done = run(*arguments, host=host, data=request("joe"), CVM_DRY_RUN="1", CVM_LOOKUP_SECRET=None)
        assert done.returncode == 100
        assert b"CVM_DRY_RUN: found '1', expected CVM_LOOKUP_SECRET as well" in done.stderr


@pytest.mark.root
def test_a_refused_access_that_a_setting_makes_permanent_is_a_rejection_too(host: Host) -> None:
    host.user("closed", 5004, ".qmail-x")
    host.file("home/closed/.qmail-x", uid=5005, gid=5005, mode=0o600)
    host.passwd("closed:x:5004:5004::{root}/home/closed:/bin/sh")
    for dry_run, code in (("0", 100), ("1", 0)):
        with serving(host, CVM_QMAIL_CHECK_PERMS="-", CVM_DRY_RUN=dry_run) as server:
            assert server.ask("closed-x").code == code
            server.logged("closed dotqmail-denied")
