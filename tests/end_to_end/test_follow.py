"""CVM_QMAIL_FOLLOW: what is only forwarded to addresses that would be rejected, is rejected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hosts import Host, temporary_directory
from phosts import table
from serving import Server, serving
from vdomains import VpopmailHost, vpopmail_host

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.trace.capture import look_up
from cvm_qmail.cvmctl.trace.narrate import stages
from cvm_qmail.cvmctl.trace.remedies import remedies
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings

pytestmark = pytest.mark.root

YES, NO, TEMPORARY = 0, 100, 4

FILES = {
    ".qmail-nobody": "nobody@example.org\n",
    ".qmail-both": "&nobody@example.org\n# and\njoe-nobody2@example.org\n",
    ".qmail-one": "nobody@example.org\nann@example.org\n",
    ".qmail-kept": "nobody@example.org\n./Mailbox\n",
    ".qmail-run": "nobody@example.org\n|true\n",
    ".qmail-far": "nobody@elsewhere.example\n",
    ".qmail-here": "nobody\n",
    ".qmail-chain": "joe-nobody@example.org\n",
    ".qmail-loop": "joe-loop2@example.org\n",
    ".qmail-loop2": "joe-loop@example.org\n",
    ".qmail-self": "joe-self@EXAMPLE.ORG\n",
    ".qmail-good": "&joe-foo@example.org\n",
    ".qmail-sticky": "eve-x@example.org\n",
    ".qmail-virtual": "&nix@v.example\n",
    ".qmail-comment": "# nothing\n",
    ".qmail-forward": "|forward nobody@example.org\n",
    ".qmail-forward2": "|forward nobody@example.org ann@example.org\n",
    ".qmail-forward3": "|forward nobody@example.org\n./Mailbox\n",
    ".qmail-ff-default": "|fastforward -d t.cdb\n",
    ".qmail-fp-default": "|fastforward -dp t.cdb\n./Mailbox\n",
    ".qmail-fq-default": "|fastforward -dp t.cdb\nann@example.org\n",
    ".qmail-list": "+list\nnobody@example.org\n",
}
TABLE = table(
    {
        b":a@example.org": b"&nobody@example.org\0",
        b":b@example.org": b"&nobody@example.org\0&ann@example.org\0",
        b":c@example.org": b"&a@example.org\0",
        b":d@example.org": b"&nobody@elsewhere.example\0",
        b":e@example.org": b"&e@example.org\0",
        b":f@example.org": b"|exit 0\0&nobody@example.org\0",
        b":g@example.org": b"./l.bin\0",
        b":h@example.org": b"&joe-nobody@example.org\0",
    }
)


def prepared(host: Host) -> Host:
    for name, text in FILES.items():
        host.file(f"home/joe/{name}", text, uid=5001, gid=5001)
    host.file("home/joe/t.cdb", TABLE, uid=5001, gid=5001)
    host.file("home/joe/l.bin", b"&nobody@example.org\0&joe-nobody@example.org\0", uid=5001, gid=5001)
    host.user("eve", 5003, mode=0o1755)
    passwd = ("joe", 5001), ("ann", 5002), ("eve", 5003)
    host.passwd(*(f"{name}:x:{uid}:{uid}::{{root}}/home/{name}:/bin/sh" for name, uid in passwd))
    return host


CASES = {
    "nobody": NO,
    "both": NO,
    "one": YES,
    "kept": YES,
    "run": YES,
    "far": YES,
    "here": YES,  # at envnoathost, which is not local here
    "chain": NO,
    "loop": YES,
    "self": YES,
    "good": YES,
    "sticky": YES,  # a temporary failure
    "virtual": NO,
    "comment": YES,
    "forward": NO,
    "forward2": YES,
    "forward3": YES,
    "ff-a": NO,
    "ff-b": YES,
    "ff-c": NO,
    "ff-d": YES,
    "ff-e": YES,
    "ff-f": YES,
    "ff-g": NO,
    "ff-h": NO,
    "ff-z": NO,
    "fp-a": NO,
    "fp-z": YES,
    "fq-a": YES,
    "list": NO,
    "foo": YES,
}
REFUSED_ANYWAY = {"ff-z"}


@pytest.fixture
def following(host: Host) -> Iterator[Server]:
    with serving(prepared(host), CVM_QMAIL_FOLLOW="1", CVM_WORKERS="1") as server:
        yield server


def test_an_address_is_rejected_if_all_that_it_forwards_to_is(following: Server) -> None:
    said = {ext: following.ask(f"joe-{ext}").code for ext in CASES for _ in range(3)}
    assert said == CASES
    assert following.logged("- joe-nobody@").split()[3] == "forwards-to-nobody"


def test_without_the_setting_nothing_is_followed(host: Host) -> None:
    with serving(prepared(host), CVM_WORKERS="1") as server:
        assert {ext for ext in CASES if server.ask(f"joe-{ext}").code != YES} == REFUSED_ANYWAY


def test_an_address_that_comes_to_exist_is_seen_at_once(following: Server, host: Host) -> None:
    assert {following.ask("joe-nobody").code for _ in range(3)} == {NO}
    host.file("alias/.qmail-nobody", uid=5090, gid=5099)
    assert {following.ask("joe-nobody").code for _ in range(3)} == {YES}
    (host.root / "alias/.qmail-nobody").unlink()
    assert {following.ask("joe-nobody").code for _ in range(3)} == {NO}


def test_a_domain_that_is_local_only_by_a_setting_is_elsewhere(host: Host) -> None:
    with serving(prepared(host), CVM_QMAIL_FOLLOW="1", CVM_QMAIL_ASSUME_LOCAL="", CVM_WORKERS="1") as server:
        assert server.ask("joe-far").code == YES
        assert server.ask("joe-nobody").code == NO


def test_a_trace_shows_the_chain(host: Host) -> None:
    settings = Settings.from_environment(prepared(host).environment | {"CVM_QMAIL_FOLLOW": "1"})
    case = look_up(Recipient(b"joe-chain", b"example.org"), settings, qmail)
    chain = stages(case)[-1]
    assert chain.name == "where it is forwarded to"
    assert [step.text for step in chain.steps] == [
        "mail to joe-chain@example.org is only forwarded: joe-nobody@example.org",
        "joe-nobody@example.org is only forwarded, too: nobody@example.org",
        "nobody@example.org: rejected: no-mailbox",
    ]
    assert [stage.name for stage in stages(case)].count("qmail-local: the home and its .qmail files") == 1
    (remedy,) = remedies(case)
    assert remedy.startswith(f"correct the addresses in {host.root}/home/joe/.qmail-chain: joe-nobody@example.org, ")


# -- vpopmail -----------------------------------------------------------------------------------------

DD = "example.com"
NOBODY = f"&nobody@{DD}\n"


@pytest.mark.parametrize(
    ("path", "text", "address", "code"),
    [
        (f"{DD}/.qmail-kim", NOBODY, "kim", NO),
        (f"{DD}/.qmail-kim", NOBODY + f"&bob@{DD}\n", "kim", YES),
        (f"{DD}/bob/.qmail", NOBODY, "bob", NO),
        (f"{DD}/bob/.qmail", NOBODY + "./Maildir/\n", "bob", YES),
        (f"{DD}/bob/.qmail", "&nobody@elsewhere.example\n", "bob", YES),
        (f"{DD}/.qmail-default", f"|vdelivermail '' nobody@{DD}\n", "kim", YES),  # a loop
        (f"{DD}/.qmail-default", "|vdelivermail '' nobody@example.org\n", "kim", NO),
        (f"{DD}/.qmail-default", "|vdelivermail '' nobody@example.org\n&bob@x.example\n", "kim", YES),
    ],
)
def test_aliases_of_vpopmail_are_followed(path: str, text: str, address: str, code: int) -> None:
    with temporary_directory() as directory:
        host: VpopmailHost = vpopmail_host(directory)
        host.put(path, text)
        with serving(host, CVM_QMAIL_FOLLOW="1", CVM_WORKERS="1") as server:
            assert {server.ask(address, DD).code for _ in range(3)} == {code}
        with serving(host, CVM_WORKERS="1") as server:
            assert server.ask(address, DD).code == YES
