"""The module cvm-qmail on hosts in memory: verdict, reason, user, deciding file and facts; plug-ins; proofs."""

from __future__ import annotations

from typing import Any

import pytest
from disk import Asking
from memory import ALIAS, JOE, ask, controls, home, module, settings, small, tables

from cvm_qmail.answer import Answer, Facts, Recipient, Unavailable, Verdict
from cvm_qmail.entry_points import load_programs
from cvm_qmail.plugin import Challenge, Delivery, Password, Resolved
from cvm_qmail.rules.domains import Local, Remote
from cvm_qmail.rules.dotqmail import DotQmail, Home
from cvm_qmail.rules.users import Account
from cvm_qmail.settings import BadSetting

HOME = JOE.home.decode()


def why(address: str, memory: Any = None, **variables: str) -> tuple[str, str]:
    """Verdict and reason; an error is ``?``."""
    try:
        answer = ask(memory or small(), address, **variables)
    except Unavailable as error:
        return "?", error.reason
    return answer.verdict.value, answer.reason


# -- verdicts and their reasons -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "mark", "reason", "user", "where"),
    [
        ("joe@example.org", "+", "mailbox", "joe", HOME),
        ("joe-foo@example.org", "+", "dotqmail", "joe", HOME + "/.qmail-foo"),
        ("joe-list-x@example.org", "+", "dotqmail-default", "joe", HOME + "/.qmail-list-default"),
        ("joe-bar@example.org", "-", "no-mailbox", "joe", HOME),
        ("postmaster@example.org", "+", "dotqmail", "alias", "/host/alias/.qmail-postmaster"),
        ("nobody@example.org", "-", "no-mailbox", "alias", "/host/alias"),
        ("foo@v.example", "+", "dotqmail", "joe", HOME + "/.qmail-foo"),
        ("bar@v.example", "-", "no-mailbox", "joe", HOME),
        ("joe@elsewhere.example", "=", "remote", "", "control/virtualdomains"),
        ("joe@not.v.example", "=", "virtual-exception", "", "control/virtualdomains"),
        ("@example.org", "+", "discarded", "alias", "control/locals"),
    ],
)
def test_an_answer_says_what_why_who_and_where(address: str, mark: str, reason: str, user: str, where: str) -> None:
    answer = ask(small(), address)
    assert (answer.verdict.value, answer.reason) == (mark, reason)
    assert (answer.user.decode(), answer.where.decode()) == (user, where)


@pytest.mark.parametrize("address", ["joe\0@example.org", "joe@example\0.org", "\0@elsewhere.example", "joe\0"])
def test_a_nul_is_in_no_address_that_exists(address: str) -> None:
    assert why(address) == ("-", "nul")


def test_the_facts_of_an_acceptance_are_the_c_programs() -> None:
    assert ask(small(), "Joe-Foo@Example.ORG").facts == Facts(
        b"joe", 5001, 5002, directory=JOE.home, sys_username=b"joe", sys_directory=JOE.home, domain=b"example.org",
        mailbox=JOE.home,
    )  # fmt: skip


def test_a_message_for_nobody_is_thrown_away_and_alias_lends_its_facts() -> None:
    facts = ask(small(), "@example.org").facts
    assert facts is not None
    assert (facts.username, facts.userid, facts.directory) == (b"alias", ALIAS.uid, ALIAS.home)


@pytest.mark.parametrize(
    ("address", "domain"),
    [
        ("joe@EXAMPLE.org", b"example.org"),
        ("foo@V.example", b"v.example"),
        ("foo@x.W.example", b"x.w.example"),  # never the wildcard entry
        ("joe%example.org@hack.example", b"hack.example"),  # what was asked for
        ("joe", b"env.example"),
        ("foo@", b""),
    ],
)
def test_the_domain_fact_is_the_domain_asked_for(address: str, domain: bytes) -> None:
    world = controls(
        envnoathost=b"Env.Example\n",
        locals_=b"example.org\nenv.example\n",
        percenthack=b"hack.example\n",
        virtualdomains=b"v.example:joe\n.w.example:joe\n:joe\n",
    )
    facts = ask(small(controls=world), address).facts
    assert facts is not None
    assert facts.domain == domain


# -- in which order -----------------------------------------------------------------------------------


def record(user: str, uid: int = 1, home: str = "/host/home/joe", dash: str = "", ext: str = "") -> bytes:
    return f"{user}\0{uid}\x002\0{home}\0{dash}\0{ext}".encode()


def test_users_cdb_comes_before_the_password_file() -> None:
    assert ask(small(cdb={b"": b"", b"!joe\0": record("cdb")}), "joe@example.org").user == b"cdb"


def test_a_catch_all_in_users_cdb_hides_every_account() -> None:
    answer = ask(small(cdb={b"": b"-", b"!": record("all", dash="-")}), "joe@example.org")
    assert (answer.user, answer.reason) == (b"all", "no-mailbox")


def test_what_users_cdb_does_not_have_the_password_file_may_have() -> None:
    assert ask(small(cdb={b"": b"-"}), "joe@example.org").user == b"joe"


def test_a_bad_entry_of_users_cdb_is_not_skipped() -> None:
    memory = small(cdb={b"": b"-", b"!joe\0": b"joe", b"!": record("all")})
    assert why("joe@example.org", memory) == ("?", "cdb-record")


def test_a_rejection_goes_no_further_than_the_user_it_found() -> None:
    memory = small(accounts={b"alias": ALIAS, b"joe": JOE, b"joe-x": Account(7, 7, b"/x")}, homes={b"/x": home()})
    assert ask(memory, "joe-x-foo@example.org").user == b"joe-x"


def test_uid_and_home_are_judged_before_any_file() -> None:
    memory = small(cdb={b"": b"", b"!root\0": record("root", uid=0), b"!rel\0": record("rel", home="rel")})
    assert why("root@example.org", memory) == ("?", "uid-zero")
    assert why("rel@example.org", memory) == ("-", "home-not-absolute")


@pytest.mark.parametrize("address", ["joe@example.org", "joe-bar@example.org", "joe-foo@example.org"])
@pytest.mark.parametrize(("mode", "reason"), [(0o777, "home-writable"), (0o1755, "home-sticky")])
def test_in_a_bad_home_nothing_can_be_determined_of_any_address(address: str, mode: int, reason: str) -> None:
    memory = small(homes={JOE.home: home(".qmail-foo", mode=0o40000 | mode)})
    assert why(address, memory) == ("?", reason)


def test_default_delivery_needs_no_file_and_an_extension_does() -> None:
    assert why("joe@example.org") == ("+", "mailbox")
    assert why("joe-@example.org") == ("-", "no-mailbox")


def test_an_empty_dash_with_an_ext_is_default_delivery_as_well() -> None:
    assert why("x@example.org", small(cdb={b"": b"", b"!x\0": record("x", ext="ext")})) == ("+", "mailbox")


@pytest.mark.parametrize(
    ("error", "world"),
    [
        ("control", {"controls": Unavailable("control")}),
        ("cdb-unreadable", {"cdb": Unavailable("cdb-unreadable")}),
        ("no-alias", {"accounts": {}}),
        ("passwd-home", {"owners": Asking(lambda _: raising("passwd-home"))}),
        ("home", {"homes": {}}),
        ("dotqmail-denied", {"homes": {JOE.home: Home(0o40755, Asking(lambda _: raising("dotqmail-denied")))}}),
        ("dotqmail-writable", {"homes": {JOE.home: Home(0o40755, {b".qmail": DotQmail(0o100666, b"")})}}),
        ("dotqmail-blank", {"homes": {JOE.home: Home(0o40755, {b".qmail": DotQmail(0o100644, b"\n")})}}),
    ],
)
def test_an_error_anywhere_is_neither_yes_nor_no(error: str, world: dict[str, Any]) -> None:
    assert why("joe@example.org", small(**world)) == ("?", error)


def raising(reason: str) -> None:
    raise Unavailable(reason)


def test_an_error_beyond_the_user_names_the_user_and_the_file() -> None:
    memory = small(homes={JOE.home: Home(0o40755, {b".qmail": DotQmail(0o100644, b"\n")})})
    with pytest.raises(Unavailable) as error:
        ask(memory, "joe@example.org")
    assert (error.value.user, error.value.where) == (b"joe", JOE.home + b"/.qmail")


def test_a_remote_address_is_passed_even_if_users_cdb_is_broken() -> None:
    assert why("joe@elsewhere.example", small(cdb=Unavailable("cdb-unreadable"))) == ("=", "remote")


# -- settings of the build and of the C program -------------------------------------------------------


def test_the_break_character_and_alias_are_settings() -> None:
    memory = small(accounts={b"lost": ALIAS, b"joe": JOE})
    assert ask(memory, "joe+foo@example.org", CVM_QMAIL_BREAK="+", CVM_QMAIL_ALIAS="lost").reason == "dotqmail"
    assert ask(memory, "postmaster@example.org", CVM_QMAIL_ALIAS="lost").user == b"lost"


def test_the_mask_is_a_setting() -> None:
    memory = small(homes={JOE.home: home(mode=0o40775)})
    assert why("joe@example.org", memory) == ("+", "mailbox")
    assert why("joe@example.org", memory, CVM_QMAIL_MASK="022") == ("?", "home-writable")


@pytest.mark.parametrize("value", ["", "1"])
def test_assume_local_takes_every_unknown_domain_for_local_but_not_an_exception(value: str) -> None:
    assert why("joe@elsewhere.example", CVM_QMAIL_ASSUME_LOCAL=value) == ("+", "mailbox")
    assert why("joe-x@elsewhere.example", CVM_QMAIL_ASSUME_LOCAL=value) == ("-", "no-mailbox")
    assert why("joe@not.v.example", CVM_QMAIL_ASSUME_LOCAL=value) == ("=", "virtual-exception")
    assert why("foo@v.example", CVM_QMAIL_ASSUME_LOCAL=value) == ("+", "dotqmail")


@pytest.mark.parametrize(("given", "domain"), [("", b"localhost"), ("lost.example", b"lost.example")])
def test_a_missing_domain_is_replaced_with_its_user(given: str, domain: bytes) -> None:
    answer = ask(small(), "x@elsewhere.example", CVM_QMAIL_MISSINGDOMAIN=given, CVM_QMAIL_MISSINGUSER="joe-foo")
    assert answer.facts is not None
    assert (answer.reason, answer.user, answer.facts.domain) == ("dotqmail", b"joe", domain)


def test_the_user_of_a_missing_domain_is_alias_unless_set() -> None:
    assert ask(small(), "x@elsewhere.example", CVM_QMAIL_MISSINGDOMAIN="").user == b"alias"


def test_a_missing_domain_is_no_exception_and_not_with_assume_local() -> None:
    assert why("joe@not.v.example", CVM_QMAIL_MISSINGDOMAIN="") == ("=", "virtual-exception")
    assert why("nobody@x.example", CVM_QMAIL_MISSINGDOMAIN="", CVM_QMAIL_ASSUME_LOCAL="") == ("-", "no-mailbox")
    assert why("nobody@example.org", CVM_QMAIL_MISSINGDOMAIN="") == ("-", "no-mailbox")


@pytest.mark.parametrize(("value", "mark"), [("", "?"), ("x", "?"), ("-", "-"), ("-x", "-")])
@pytest.mark.parametrize("reason", ["home-denied", "dotqmail-denied"])
def test_a_refused_access_is_permanent_if_that_is_wished(value: str, mark: str, reason: str) -> None:
    homes: dict[str, Any] = {
        "home-denied": {JOE.home: Unavailable("home-denied")},
        "dotqmail-denied": {JOE.home: Home(0o40755, Asking(lambda _: raising("dotqmail-denied")))},
    }
    assert why("joe@example.org", small(homes=homes[reason]), CVM_QMAIL_CHECK_PERMS=value) == (mark, reason)


def test_other_errors_stay_temporary() -> None:
    assert why("joe@example.org", small(homes={}), CVM_QMAIL_CHECK_PERMS="-") == ("?", "home")


@pytest.mark.parametrize(
    ("content", "mark"),
    [
        (b"|vdelivermail x\n", "="),
        (b"  |vdelivermail\n", "+"),  # a forward
        (b"./Mailbox\n|  vdelivermail\t'' bounce\n", "="),
        (b"|/usr/bin/vdelivermail\n", "+"),
        (b"|vdelivermailer\n", "+"),
        (b"#|vdelivermail\n", "+"),
        (b"|preline vdelivermail\n", "+"),
        (b"|\n", "+"),
        (b"", "+"),
    ],
)
def test_look_aside_hands_a_program_to_the_next_module(content: bytes, mark: str) -> None:
    memory = small(homes={JOE.home: home(_x=content)})
    answer = ask(memory, "joe-x@example.org", CVM_QMAIL_LOOKASIDE="other vdelivermail")
    assert answer.verdict.value == mark
    assert answer.where == JOE.home + b"/.qmail-x"


def test_look_aside_does_not_save_a_file_that_makes_qmail_wait() -> None:
    memory = small(homes={JOE.home: home(_x=b"\n|vdelivermail\n")})
    assert why("joe-x@example.org", memory, CVM_QMAIL_LOOKASIDE="vdelivermail") == ("?", "dotqmail-blank")


@pytest.mark.parametrize(("variables", "mark"), [({}, "+"), ({"CVM_QMAIL_LOOKASIDE": "x"}, "?")])
def test_lines_that_cannot_be_read_matter_only_to_whom_they_may_concern(variables: dict[str, str], mark: str) -> None:
    memory = small(homes={JOE.home: Home(0o40755, {b".qmail-x": DotQmail(0o100600, None)})})
    assert why("joe-x@example.org", memory, **variables)[0] == mark


@pytest.mark.parametrize("mode", [0o100600, 0o100700], ids=["lookaside", "forward-only"])
def test_lines_that_cannot_be_read_are_named_by_the_path_of_their_file(mode: int) -> None:
    memory = small(homes={JOE.home: Home(0o40755, {b".qmail-x": DotQmail(mode, None)})})
    with pytest.raises(Unavailable, match="dotqmail-unread") as error:
        ask(memory, "joe-x@example.org", CVM_QMAIL_LOOKASIDE="x")
    assert error.value.where == JOE.home + b"/.qmail-x"


# -- delivery programs --------------------------------------------------------------------------------


def test_a_program_gets_what_qmail_local_knows() -> None:
    seen: list[Delivery] = []
    ask(small(), "joe-List-X.y@Example.ORG", (seen.append,))
    (delivery,) = seen
    assert delivery.recipient == Recipient(b"joe-List-X.y", b"Example.ORG")
    assert (delivery.user.name, delivery.dash, delivery.ext, delivery.host) == (
        b"joe", b"-", b"List-X.y", b"Example.ORG",
    )  # fmt: skip
    assert (delivery.file.name, delivery.file.default) == (b".qmail-list-default", True)


@pytest.mark.parametrize(
    ("address", "local"),
    [
        ("joe-List-X.y@Example.ORG", b"joe-List-X.y"),
        ("List-X@v.example", b"joe-List-X"),
        ("joe-List-X%example.org@hack.example", b"joe-List-X"),
        ("List-X%v.example@hack.example", b"joe-List-X"),
    ],
)
def test_a_program_gets_the_local_part_that_qmail_local_is_run_for(address: str, local: bytes) -> None:
    seen: list[Delivery] = []
    ask(
        small(controls=controls(percenthack=b"hack.example\n", virtualdomains=b"v.example:joe\n")),
        address,
        (seen.append,),
    )
    assert [delivery.local for delivery in seen] == [local]


def test_a_program_decides_and_the_controlling_user_fills_in() -> None:
    answer = ask(small(), "joe-foo@example.org", (lambda _: Answer(Verdict.ACCEPTED, "mine"),))
    plain = ask(small(), "joe-foo@example.org")
    assert answer == plain._replace(reason="mine")


def test_a_program_may_say_who_and_what_itself() -> None:
    own = Answer(Verdict.ACCEPTED, "mine", b"u", b"/where", Facts(b"u", 1, 2))
    assert ask(small(), "joe-foo@example.org", (lambda _: own,)) == own


@pytest.mark.parametrize("verdict", [Verdict.REJECTED, Verdict.OUT_OF_SCOPE])
def test_a_program_may_refuse(verdict: Verdict) -> None:
    answer = ask(small(), "joe-foo@example.org", (lambda _: Answer(verdict, "mine"),))
    assert (answer.verdict, answer.facts, answer.user) == (verdict, None, b"joe")


def test_the_first_program_that_knows_decides() -> None:
    programs = (
        lambda _: None,
        lambda _: Answer(Verdict.REJECTED, "second"),
        lambda _: Answer(Verdict.OUT_OF_SCOPE, "third"),
    )
    assert ask(small(), "joe-foo@example.org", programs).reason == "second"


def test_what_no_program_knows_is_qmails_to_decide() -> None:
    assert ask(small(), "joe-foo@example.org", (lambda _: None,)).reason == "dotqmail"


def test_look_aside_comes_before_every_program() -> None:
    memory = small(homes={JOE.home: home(_x=b"|vdelivermail\n")})
    answer = ask(
        memory, "joe-x@example.org", (lambda _: Answer(Verdict.ACCEPTED, "mine"),), CVM_QMAIL_LOOKASIDE="vdelivermail"
    )
    assert answer.reason == "lookaside"


def test_without_a_file_no_program_is_asked() -> None:
    def never(_: Delivery) -> Answer:
        raise AssertionError

    assert ask(small(), "joe@example.org", (never,)).reason == "mailbox"
    assert ask(small(), "joe-bar@example.org", (never,)).reason == "no-mailbox"


def test_programs_that_are_not_installed_are_said_at_start() -> None:
    with pytest.raises(BadSetting, match="CVM_QMAIL_PROGRAMS: found 'no-such-program'"):
        load_programs(tables(small()), settings(CVM_QMAIL_PROGRAMS="no-such-program"))


def test_no_programs_can_be_wished() -> None:
    assert load_programs(tables(small()), settings(CVM_QMAIL_PROGRAMS="")) == []


# -- who controls an address -------------------------------------------------------------------------


def resolved(address: str, **variables: str) -> Resolved:
    """Who controls an address of the small host."""
    account, _, domain = address.encode().rpartition(b"@")
    resolver = module(small(), **variables).resolver
    assert resolver is not None
    return resolver.resolve(Recipient(account, domain))


def test_a_local_address_is_resolved_to_its_user_without_an_answer() -> None:
    found = resolved("joe-foo@Example.org")
    assert found.user is not None
    assert found.route is not None
    assert (found.user.name, found.user.dash, found.user.ext, found.answer) == (b"joe", b"-", b"foo", None)
    assert (found.route.address, found.route.domain) == (b"joe-foo@Example.org", b"example.org")
    assert found.route.target == Local(b"joe-foo", b"Example.org", "locals")


@pytest.mark.parametrize(
    ("variables", "target"),
    [
        ({"CVM_QMAIL_ASSUME_LOCAL": ""}, Local(b"joe", b"elsewhere.example", "CVM_QMAIL_ASSUME_LOCAL")),
        ({"CVM_QMAIL_MISSINGDOMAIN": "m.example"}, Local(b"alias", b"m.example", "CVM_QMAIL_MISSINGDOMAIN")),
        ({}, Remote(b"joe", b"elsewhere.example", exception=False)),
    ],
)
def test_the_route_names_the_setting_that_makes_it_local(variables: dict[str, str], target: Local | Remote) -> None:
    found = resolved("joe@elsewhere.example", **variables)
    assert found.route is not None
    assert found.route.target == target
    assert (found.user is None) == (found.answer is not None) == isinstance(target, Remote)


def test_an_address_with_a_nul_is_decided_before_any_rule() -> None:
    assert resolved("jo\0e@example.org") == (Recipient(b"jo\0e", b"example.org"), None, None, NUL)


NUL = Answer(Verdict.REJECTED, "nul")


# -- proofs -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("proof", [Password(b"hidden"), Challenge(b"hidden", b"hidden", b"hidden")])
def test_a_proof_shows_nothing_of_itself(proof: object) -> None:
    assert "hidden" not in f"{proof} {proof!r}"


def test_the_module_looks_up_only() -> None:
    assert module(small()).authenticate is None
