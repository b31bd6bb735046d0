"""One request's bytes to its response's: secret, facts, codes, and what the log hears."""

from __future__ import annotations

from typing import Any

import pytest
from memory import ask, module, request, responding, small

from cvm_qmail.answer import Answer, Facts, Kind, Recipient, Unavailable, Verdict
from cvm_qmail.observe import log
from cvm_qmail.plugin import Challenge, Lookup, Module, Password, Proof
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Code, Fact
from cvm_qmail.protocols.cvm.responder import code_of
from cvm_qmail.service.events import NO_QUERY, Event

JOE = Facts(b"joe", 5001, 5002, directory=b"/home/joe")
YES = Answer(Verdict.ACCEPTED, "mailbox", b"joe", b"/home/joe", JOE)


def yes(_recipient: Recipient) -> Answer:
    return YES


def answer(packet: bytes, to: Module | Lookup = yes, secret: bytes | None = b"") -> tuple[packets.Response, Event]:
    """The response, and the one event that was reported."""
    events: list[Event] = []
    response = packets.parse_response(responding(to, events, secret)(packet), packet[0])
    (event,) = events
    return response, event


def code(packet: bytes, secret: bytes | None) -> int:
    return answer(packet, module(small()), secret)[0].code


# -- the secret ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secret", "given", "expected"),
    [
        (None, {}, Code.CONFIG),  # authentication mode, and this module has no passwords
        (None, {"secret": b"x"}, Code.CONFIG),
        (b"", {}, 0),
        (b"", {"secret": b"whatever"}, 0),
        (b"word", {"secret": b"word"}, 0),
        (b"word", {}, Code.NOCRED),
        (b"word", {"secret": b""}, Code.NOCRED),
        (b"word", {"secret": b"Word"}, Code.NOCRED),
        (b"word", {"secret": b"wor"}, Code.NOCRED),
        (b"word", {"secret": b"words"}, Code.NOCRED),
        (b"word", {"password": b"word"}, Code.NOCRED),
        (b"w\xf6rd", {"secret": b"w\xf6rd"}, 0),
    ],
)
def test_unset_empty_and_set_are_three_different_secrets(
    secret: bytes | None, given: dict[str, bytes], expected: int
) -> None:
    assert code(request(account=b"joe", domain=b"example.org", **given), secret) == expected


@pytest.mark.parametrize(
    ("secret", "given", "expected"),
    [
        (b"word", {"secret": b"word"}, 0),
        (b"word", {"password": b"word"}, 0),  # without types there is one word, and it is the secret
        (b"word", {"secret": b"wrong"}, Code.NOCRED),
        (b"word", {}, Code.NOCRED),
        (b"", {}, 0),
        (b"", {"secret": b"x"}, 0),
        (None, {"password": b"x"}, Code.CONFIG),
    ],
)
def test_in_version_1_the_lone_word_is_the_secret_if_one_is_set(
    secret: bytes | None, given: dict[str, bytes], expected: int
) -> None:
    assert code(request(1, account=b"joe", domain=b"example.org", **given), secret) == expected


def proof_of(packet: bytes) -> Proof | None:
    """What a module that checks passwords is given."""
    seen: list[Proof] = []

    def authenticate(_recipient: Recipient, proof: Proof) -> Answer:
        seen.append(proof)
        return YES

    answer(packet, Module(yes, authenticate), None)
    return seen[0] if seen else None


@pytest.mark.parametrize(
    ("packet", "proof"),
    [
        (request(1, account=b"joe", password=b"w"), Password(b"w")),
        (request(account=b"joe", password=b"w"), Password(b"w")),
        (request(account=b"joe", password=b""), Password(b"")),
        (request(account=b"joe", challenge=b"c", response=b"r", response_type=b"t"), Challenge(b"c", b"r", b"t")),
        (request(account=b"joe", response=b"r"), Challenge(b"", b"r", b"")),
        (request(account=b"joe", challenge=b"c"), None),
        (request(account=b"joe"), None),
    ],
)
def test_a_module_is_given_the_proof_of_the_request(packet: bytes, proof: Proof | None) -> None:
    assert proof_of(packet) == proof


def test_without_the_secret_nothing_is_looked_up() -> None:
    def never(_recipient: Recipient) -> Answer:
        raise AssertionError

    response, event = answer(request(account=b"joe"), never, b"word")
    assert (response.code, event.outcome.reason) == (Code.NOCRED, "no-secret")


def test_a_wrong_secret_and_none_differ_in_the_log_only() -> None:
    wrong, wrong_event = answer(request(account=b"joe", secret=b"x"), yes, b"word")
    none, none_event = answer(request(account=b"joe"), yes, b"word")
    assert (wrong, wrong_event.outcome.reason, none_event.outcome.reason) == (none, "wrong-secret", "no-secret")


def test_in_authentication_mode_a_rejection_is_a_rejection() -> None:
    response, _ = answer(request(account=b"nobody", domain=b"example.org"), module(small()), None)
    assert response == packets.Response(100, b"", ((Fact.OUTOFSCOPE, b"0"),))


@pytest.mark.parametrize("given", [{"secret": b"w-o-r-d"}, {"secret": b"wr-ong"}, {"password": b"pa-ss"}])
@pytest.mark.parametrize("secret", [None, b"", b"w-o-r-d"])
def test_no_secret_and_no_password_reaches_the_log(secret: bytes | None, given: dict[str, bytes]) -> None:
    _, event = answer(request(account=b"joe", **given), module(small()), secret)
    line = log.as_line(event, 0.0) + log.as_line(event, 0.0, "json")
    assert not [word for word in ("w-o-r-d", "wr-ong", "pa-ss") if word in line]


# -- the answers --------------------------------------------------------------------------------------


def test_facts_come_in_the_order_of_the_c_program() -> None:
    everything = Facts(b"u", 1, 2, b"real", b"/d", b"/sh", b"group", b"su", b"/sd", b"dom", b"/mb")
    response, _ = answer(request(account=b"joe"), lambda _: YES._replace(facts=everything))
    assert response.facts == (
        (Fact.USERNAME, b"u"),
        (Fact.USERID, b"1"),
        (Fact.GROUPID, b"2"),
        (Fact.REALNAME, b"real"),
        (Fact.DIRECTORY, b"/d"),
        (Fact.SHELL, b"/sh"),
        (Fact.GROUPNAME, b"group"),
        (Fact.SYS_USERNAME, b"su"),
        (Fact.SYS_DIRECTORY, b"/sd"),
        (Fact.DOMAIN, b"dom"),
        (Fact.MAILBOX, b"/mb"),
    )


def test_absent_facts_are_left_out_and_empty_ones_are_not() -> None:
    facts = Facts(b"joe", 0, 0, realname=b"", directory=b"/")
    response, _ = answer(request(account=b"joe"), lambda _: YES._replace(facts=facts))
    assert [kind for kind, _ in response.facts] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("verdict", "scope"),
    [(Verdict.REJECTED, b"0"), (Verdict.OUT_OF_SCOPE, b"1")],
)
def test_a_rejection_says_whether_the_address_is_in_scope(version: int, verdict: Verdict, scope: bytes) -> None:
    response, event = answer(request(version, account=b"joe"), lambda _: Answer(verdict, "why", b"u", b"/where"))
    assert (response.code, response.facts) == (100, ((Fact.OUTOFSCOPE, scope),))
    assert (event.query.recipient, event.outcome) == ((b"joe", None), Answer(verdict, "why", b"u", b"/where"))


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("kind", "number"),
    [(Kind.TEMPORARY, Code.IO), (Kind.MISCONFIGURED, Code.CONFIG), (Kind.NO_CREDENTIAL, Code.NOCRED)],
)
def test_a_temporary_failure_is_its_code_and_nothing_else(version: int, kind: Kind, number: int) -> None:
    error = Unavailable("why", "in words", b"/where", kind)

    def broken(_recipient: Recipient) -> Answer:
        raise error

    response, event = answer(request(version, account=b"joe", domain=b"x"), broken)
    assert (response.code, response.facts) == (number, ())
    assert (event.query.recipient, event.outcome) == ((b"joe", b"x"), error)


@pytest.mark.parametrize("kind", Kind)
def test_no_failure_is_sent_as_a_yes_or_a_no(kind: Kind) -> None:
    assert code_of(Unavailable("why", kind=kind)) not in (Code.SUCCESS, Code.PERMFAIL)


def test_the_user_of_a_failure_is_logged_if_it_was_found() -> None:
    memory = small(homes={})
    events: list[Event] = []
    responding(module(memory), events)(request(account=b"joe", domain=b"example.org"))
    assert (events[0].outcome.user, events[0].outcome.reason) == (b"joe", "home")


@pytest.mark.parametrize("nonce", [b"", b"salt", b"\0" * 8, b"n" * 255])
@pytest.mark.parametrize("address", ["joe@example.org", "nobody@example.org", "joe@elsewhere.example"])
def test_the_nonce_comes_back_as_it_was(nonce: bytes, address: str) -> None:
    account, domain = address.encode().split(b"@")
    response, _ = answer(request(nonce=nonce, account=account, domain=domain), module(small()))
    assert response.nonce == nonce


def test_the_question_that_is_asked_is_the_address_of_the_request() -> None:
    asked: list[Recipient] = []

    def noting(recipient: Recipient) -> Answer:
        asked.append(recipient)
        return YES

    for packet in (request(), request(account=b"a"), request(account=b"a", domain=b""), request(1, account=b"a")):
        answer(packet, noting)
    assert asked == [(b"", None), (b"a", None), (b"a", b""), (b"a", None)]


def test_version_1_is_answered_in_version_1() -> None:
    events: list[Event] = []
    respond = responding(module(small()), events)
    assert respond(request(1, account=b"joe", domain=b"Example.ORG")) == (
        b"\0\1joe\0\x025001\0\x035002\0\5/host/home/joe\0\x09joe\0\x0a/host/home/joe\0\x0eexample.org\0"
        b"\x0f/host/home/joe\0\0"
    )
    assert respond(request(1, account=b"nobody", domain=b"example.org")) == b"d\x100\0\0"
    assert respond(request(1, account=b"joe", domain=b"elsewhere.example")) == b"d\x101\0\0"


def test_a_whole_response_of_version_2() -> None:
    assert responding(module(small()), [])(request(nonce=b"salt", account=b"joe", domain=b"example.org")) == (
        b"\0\4salt\1\3joe\2\x045001\3\x045002\5\x0e/host/home/joe\x09\3joe\x0a\x0e/host/home/joe\x0e\x0bexample.org"
        b"\x0f\x0e/host/home/joe\0"
    )


# -- facts that do not fit ----------------------------------------------------------------------------

FULL = Facts(b"u" * 10, 1, 2, b"r" * 10, b"d" * 10, b"s" * 10, b"g" * 10, b"U" * 10, b"D" * 10, b"o" * 10, b"m" * 10)


def left_out(facts: Facts, version: int = 2) -> set[int]:
    """Which of all eleven facts the response does not have."""
    response, _ = answer(request(version, account=b"joe"), lambda _: YES._replace(facts=facts))
    assert response.code == 0
    everything = {kind for kind, _ in answer(request(account=b"joe"), lambda _: YES._replace(facts=FULL))[0].facts}
    return everything - {kind for kind, _ in response.facts}


ORDER = [
    Fact.MAILBOX,
    Fact.SYS_DIRECTORY,
    Fact.SYS_USERNAME,
    Fact.REALNAME,
    Fact.SHELL,
    Fact.GROUPNAME,
    Fact.DOMAIN,
]


@pytest.mark.parametrize("number", range(8))
def test_dispensable_facts_are_left_out_in_order_until_the_rest_fits(number: int) -> None:
    bytes_over = 12 * number  # each of them has twelve
    for length in (154, 165):  # 501 and 512 bytes in all
        facts = FULL._replace(username=b"u" * 250, directory=b"d" * (length + bytes_over))
        assert left_out(facts) == set(ORDER[:number])


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({}, set()),
        ({"mailbox": b"m" * 255, "domain": b"o" * 255}, {Fact.MAILBOX}),
        ({"mailbox": b"m" * 256}, {Fact.MAILBOX}),
        ({"domain": b"o" * 256}, {Fact.DOMAIN}),  # too long for itself: it goes, and nothing else has to
        ({"realname": b"r" * 300, "mailbox": b"m" * 200}, {Fact.REALNAME}),
        ({"sys_directory": b"D" * 256, "username": b"u" * 250, "directory": b"d" * 170}, {Fact.SYS_DIRECTORY}),
    ],
)
def test_a_fact_that_is_too_long_for_itself_goes_first(change: dict[str, bytes], missing: set[int]) -> None:
    assert left_out(FULL._replace(**change)) == missing


def test_in_version_1_a_fact_may_be_longer() -> None:
    facts = Facts(b"joe", 1, 2, directory=b"/" + b"d" * 300)
    response, event = answer(request(1, account=b"joe"), lambda _: YES._replace(facts=facts))
    assert (response.code, dict(response.facts)[Fact.DIRECTORY], code_of(event.outcome)) == (0, facts.directory, 0)


def test_the_limit_is_512_bytes_and_the_nonce_counts() -> None:
    facts = Facts(b"joe", 1, 2, directory=b"d" * 200, mailbox=b"m" * 255)
    there = len(responding(lambda _: YES._replace(facts=facts), [])(request(account=b"joe")))
    assert there < 512
    for more in (512 - there, 513 - there):
        packet = responding(lambda _: YES._replace(facts=facts), [])(request(nonce=b"n" * more, account=b"joe"))
        assert (Fact.MAILBOX in dict(packets.parse_response(packet).facts)) == (there + more <= 512)


@pytest.mark.parametrize("version", [1, 2])
def test_an_acceptance_whose_needed_facts_do_not_fit_is_code_3_without_facts(version: int) -> None:
    facts = Facts(b"u" * 255, 1, 2, directory=b"d" * 255)
    packet = request(version, nonce=b"salt" if version == 2 else b"", account=b"joe")
    response, event = answer(packet, lambda _: YES._replace(facts=facts))
    assert (response.code, response.facts) == (Code.BAD_MODDATA, ())
    assert code_of(event.outcome) == Code.BAD_MODDATA


def test_a_needed_fact_that_is_too_long_for_itself_is_code_3() -> None:
    response, _ = answer(request(account=b"joe"), lambda _: YES._replace(facts=JOE._replace(directory=b"d" * 256)))
    assert response.code == Code.BAD_MODDATA


# -- bad requests -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("packet", "reply"),
    [
        (b"\2", b"\2\0\0"),
        (b"\2\4salt\1\xff", b"\2\4salt\0"),
        (b"\1joe", b"\2\0"),
        (b"\x09", b"\2\0"),
        (b"x" * 513, b"\2\0\0"),
    ],
)
def test_a_malformed_request_is_code_2_and_is_logged(packet: bytes, reply: bytes) -> None:
    events: list[Event] = []
    assert responding(yes, events)(packet) == reply
    assert [(event.query, code_of(event.outcome), event.outcome.reason) for event in events] == [
        (NO_QUERY, 2, "malformed")
    ]


def test_no_request_at_all_is_no_answer_and_no_line() -> None:
    events: list[Event] = []
    assert (responding(yes, events)(b""), events) == (b"", [])


@pytest.mark.parametrize("secret", [None, b"", b"word"])
def test_a_malformed_request_is_malformed_whatever_the_secret(secret: bytes | None) -> None:
    assert answer(b"\2\0\1", secret=secret)[0].code == Code.BAD_CLIDATA


# -- the reason word, credential and fact 240 -----------------------------------------------------------


def reason_of(packet: bytes, to: Module | Lookup = yes, secret: bytes | None = b"") -> bytes | None:
    """The reason word in the response."""
    return dict(answer(packet, to, secret)[0].facts).get(Fact.REASON)


def raising(error: Exception) -> Lookup:
    def look_up(_recipient: Recipient) -> Answer:
        raise error

    return look_up


NO = Answer(Verdict.REJECTED, "no-mailbox", b"joe", b"/home/joe")
NOT_OURS = Answer(Verdict.OUT_OF_SCOPE, "remote")
EVERY_OUTCOME = [
    (yes, 0, b"mailbox"),
    (lambda _: NO, 100, b"no-mailbox"),
    (lambda _: NOT_OURS, 100, b"remote"),
    (raising(Unavailable("home-sticky", "has mode 1755", b"/home/joe")), 4, b"home-sticky"),
    (raising(Unavailable("database-settings", kind=Kind.MISCONFIGURED)), 6, b"database-settings"),
    (raising(ValueError("secret")), 4, b"internal-error"),
]


@pytest.mark.parametrize(("to", "expected", "reason"), EVERY_OUTCOME)
def test_who_asks_with_credential_240_gets_the_reason(to: Lookup, expected: int, reason: bytes) -> None:
    response, _ = answer(request(nonce=b"saltsalt", account=b"joe", domain=b"d", reason=b""), to)
    assert (response.code, response.nonce) == (expected, b"saltsalt")
    assert [value for kind, value in response.facts if kind == Fact.REASON] == [reason]


@pytest.mark.parametrize(("to", "_expected", "_reason"), EVERY_OUTCOME)
@pytest.mark.parametrize("version", [1, 2])
def test_nobody_else_sees_a_byte_changed(to: Lookup, _expected: int, _reason: bytes, version: int) -> None:
    plain = responding(to, [])(request(version, account=b"joe", domain=b"d", secret=b"s"))
    assert b"\xf0" not in plain
    if version == 2:
        asked = responding(to, [])(request(2, account=b"joe", domain=b"d", secret=b"s", reason=b""))
        assert asked[: len(plain) - 1] == plain[:-1]
        assert responding(to, [])(request(2, account=b"joe", domain=b"d", secret=b"s", reason=b"x")) == plain


def test_a_wrong_secret_gets_no_reason() -> None:
    assert reason_of(request(account=b"joe", secret=b"wrong", reason=b""), secret=b"word") is None
    assert reason_of(request(account=b"joe", reason=b""), secret=b"word") is None


def test_a_login_gets_no_reason() -> None:
    assert (
        reason_of(request(account=b"joe", password=b"word", reason=b""), Module(yes, authenticate=lambda *_: NO), None)
        is None
    )


def saying(said: Answer) -> Lookup:
    """The same answer to everybody."""
    return lambda _: said


def test_the_reason_is_left_out_first_where_facts_do_not_fit() -> None:
    long = Facts(b"joe", 5001, 5002, directory=b"/" + b"x" * 200, sys_directory=b"/" + b"x" * 200)
    for pad in range(60, 110):
        to = saying(YES._replace(facts=long._replace(domain=b"d" * pad)))
        plain, explained = (answer(request(account=b"joe", **more), to)[0] for more in ({}, {"reason": b""}))
        assert [fact for fact in explained.facts if fact[0] != Fact.REASON] == list(plain.facts)


def test_a_reason_of_a_plug_in_is_cut_where_it_has_to_be() -> None:
    to = saying(NO._replace(reason="\u00e9" + "x" * 500))
    response, _ = answer(request(nonce=b"n" * 255, account=b"joe", reason=b""), to)
    assert response.code == 100
    assert (reason_of(request(account=b"joe", reason=b""), to) or b"").startswith(b"\\xe9xxx")


# -- what nobody expects ------------------------------------------------------------------------------


def internal_error_of(to: Lookup) -> Unavailable:
    """The outcome of a lookup that is broken; the response is a temporary failure."""
    events: list[Event] = []
    packet = request(nonce=b"salt", account=b"joe", secret=b"pa-ss")
    assert responding(to, events)(packet) == b"\4\4salt\0"
    outcome = events[0].outcome
    assert isinstance(outcome, Unavailable)
    assert (outcome.reason, outcome.kind) == ("internal-error", Kind.TEMPORARY)
    return outcome


@pytest.mark.parametrize("error", [ValueError, KeyError, OSError, RecursionError, MemoryError, AssertionError])
def test_an_exception_is_code_4_with_its_place_and_without_its_words(error: type[Exception]) -> None:
    def broken(recipient: Recipient) -> Answer:
        raise error(f"with pa-ss for {recipient}")

    outcome = internal_error_of(broken)
    assert f"{error.__name__} at " in outcome.detail
    assert "test_responder.py" in outcome.detail
    assert "pa-ss" not in outcome.detail


def test_an_acceptance_without_facts_is_a_fault_of_the_module_and_temporary() -> None:
    internal_error_of(lambda _: Answer(Verdict.ACCEPTED, "mailbox"))


def test_facts_that_are_none_are_a_fault_of_the_module_and_temporary() -> None:
    wrong: Any = "5001"
    internal_error_of(lambda _: YES._replace(facts=JOE._replace(userid=wrong)))


def test_an_answer_that_is_none_is_a_fault_of_the_module_and_temporary() -> None:
    none: Any = None
    internal_error_of(lambda _: none)


# -- with qmail's own rules ---------------------------------------------------------------------------


def test_a_nul_in_the_address_is_nobodys() -> None:
    assert ask(small(), "jo\0e@example.org") == Answer(Verdict.REJECTED, "nul")
    response, _ = answer(request(account=b"joe\0x", domain=b"example.org"), module(small()))
    assert response == packets.Response(100, b"", ((Fact.OUTOFSCOPE, b"0"),))
