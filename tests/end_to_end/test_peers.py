"""The programs that call us: cvm's clients and mailfront, as they are.

One host has an address of each kind; each client is asked about each, over each transport.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from end_to_end.programs import beside, run
from hosts import Host, plain_host, temporary_directory
from serving import CVM_QMAIL, Server, serving

CVM = pytest.mark.peer("cvm-testclient")
MAILFRONT = pytest.mark.peer("mailfront")
pytestmark = pytest.mark.root

JOE, NOBODY, STICKY, ELSEWHERE = (
    ("joe", "example.org"),
    ("nobody", "example.org"),
    ("sticky", "example.org"),
    ("joe", "elsewhere.example"),
)


@pytest.fixture
def host(host: Host) -> Host:
    """The plain host, and `sticky`, whose home says that its user is editing: nobody can know yet."""
    host.user("sticky", 5003, mode=0o1755)
    host.passwd("joe:x:5001:5001::{root}/home/joe:/bin/sh", "sticky:x:5003:5003::{root}/home/sticky:/bin/sh")
    return host


class Module:
    """A module to call, and the environment that its callers need."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name = name
        self.environment = environment

    def ask(self, client: str, *arguments: str, **more: str) -> tuple[int, str, str]:
        """What a client says of the address: exit status, output, errors (without a command's log of its failures)."""
        done = run(client, self.name, *arguments, **{**self.environment, **more})
        errors = [line for line in done.stderr.decode().splitlines(keepends=True) if not line.startswith("? ")]
        return done.returncode, done.stdout.decode(), "".join(errors)


@contextmanager
def a_module(host: Host, scheme: str, secret: str | None = "") -> Iterator[Module]:
    """Our server or command; its callers show its secret."""
    shown = {} if secret is None else {"CVM_LOOKUP_SECRET": secret}
    if scheme == "cvm-command":
        environment = {name: value for name, value in host.environment.items() if name != "CVM_LOOKUP_SECRET"}
        yield Module(f"cvm-command:{CVM_QMAIL}", {**environment, **shown})
    else:
        with serving(host, scheme=scheme, CVM_LOOKUP_SECRET=secret) as server:
            yield Module(server.module, shown)


def facts_of_joe(host: Host) -> str:
    home = host.root / "home/joe"
    return f"""\
user name:        joe
user ID:          5001
group ID:         5001
real name:        (null)
directory:        {home}
shell:            (null)
group name:       (null)
system user name: joe
system directory: {home}
domain:           example.org
mailbox path:     {home}
"""


def failure(client: str, code: int, meaning: str) -> str:
    fatal = "" if client == "cvm-testclient" else "Fatal: "
    return f"{client}: {fatal}Authentication failed, error #{code} ({meaning})\n"


REJECTED = 100, "Credentials rejected"
TEMPORARY = 4, "Input/Output error"
WRONG_SECRET = 7, "Credential missing in data from module"
NO_SECRET_MODE = 6, "Configuration error"


# -- cvm-testclient and its kind ------------------------------------------------------------------


@CVM
@pytest.mark.parametrize("secret", ["", "open sesame"], ids=["no secret", "secret"])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_testclient_prints_the_facts_or_the_reason(host: Host, scheme: str, secret: str) -> None:
    client = "cvm-testclient"
    with a_module(host, scheme, secret) as module:
        assert module.ask(client, *JOE) == (0, facts_of_joe(host), "")
        assert module.ask(client, "joe@example.org", "") == (0, facts_of_joe(host), "")
        assert module.ask(client, "JOE", "Example.ORG") == (0, facts_of_joe(host), "")
        assert module.ask(client, *NOBODY) == (100, "out of scope:     0\n", failure(client, *REJECTED))
        assert module.ask(client, *ELSEWHERE) == (100, "out of scope:     1\n", failure(client, *REJECTED))
        assert module.ask(client, *STICKY) == (4, "", failure(client, *TEMPORARY))


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_v1testclient_does_likewise(host: Host, scheme: str) -> None:
    client = "cvm-v1testclient"
    with a_module(host, scheme) as module:
        assert module.ask(client, *JOE) == (0, facts_of_joe(host), "")
        assert module.ask(client, *NOBODY) == (100, "", failure(client, *REJECTED))
        assert module.ask(client, *ELSEWHERE) == (100, "", failure(client, *REJECTED))
        assert module.ask(client, *STICKY) == (4, "", failure(client, *TEMPORARY))


@CVM
def test_an_address_without_a_domain_is_one_at_envnoathost(host: Host) -> None:
    with a_module(host, "cvm-local") as module:
        assert module.ask("cvm-testclient", "joe", "")[:2] == (100, "out of scope:     1\n")
        host.control("envnoathost", "example.org\n")
        assert module.ask("cvm-testclient", "joe", "") == (0, facts_of_joe(host), "")


@CVM
@pytest.mark.parametrize("client", ["cvm-testclient", "cvm-v1testclient"])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_a_secret_that_is_missing_or_wrong_is_error_7(host: Host, scheme: str, client: str) -> None:
    error = (7, "", failure(client, *WRONG_SECRET))
    with a_module(host, scheme, "open sesame") as module:
        for shown in ("", "open", "open sesame!"):
            assert module.ask(client, *JOE, CVM_LOOKUP_SECRET=shown) == error
            assert module.ask(client, *NOBODY, CVM_LOOKUP_SECRET=shown) == error
        module.environment.clear()
        assert module.ask(client, *JOE) == error
        assert module.ask(client, *JOE, "a password") == error


@CVM
def test_version_1_carries_the_secret_in_its_only_credential(host: Host) -> None:
    with a_module(host, "cvm-local", "open sesame") as module:
        assert module.ask("cvm-v1testclient", *JOE, "open sesame") == (0, facts_of_joe(host), "")


@CVM
@pytest.mark.parametrize("client", ["cvm-testclient", "cvm-v1testclient"])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_without_a_secret_in_the_environment_an_acceptance_is_error_6(host: Host, scheme: str, client: str) -> None:
    with a_module(host, scheme, None) as module:
        assert module.ask(client, *JOE) == (6, "", failure(client, *NO_SECRET_MODE))
        assert module.ask(client, *JOE, "a password") == (6, "", failure(client, *NO_SECRET_MODE))
        assert module.ask(client, *NOBODY)[0] == 100
        assert module.ask(client, *STICKY)[0] == 4


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_unreadable_control_files_are_error_4_for_every_address(host: Host, scheme: str) -> None:
    (host.root / "control/locals").unlink()
    host.directory("control/locals")
    with a_module(host, scheme) as module:
        for address in (JOE, NOBODY, STICKY, ELSEWHERE):
            assert module.ask("cvm-testclient", *address) == (4, "", failure("cvm-testclient", *TEMPORARY))


@CVM
def test_a_command_logs_its_errors_where_its_caller_does(host: Host) -> None:
    with a_module(host, "cvm-command") as module:
        assert run("cvm-testclient", module.name, *JOE, **module.environment).stderr == b""
        done = run("cvm-testclient", module.name, *STICKY, **module.environment)
    assert done.stderr.startswith(b"? sticky@example.org sticky home-sticky ")


# -- cvm-benchclient and its kind -----------------------------------------------------------------


@CVM
@pytest.mark.parametrize(("client", "credential"), [("cvm-benchclient", ()), ("cvm-v1benchclient", ("x",))])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_a_benchmark_is_answered_to_its_end(host: Host, scheme: str, client: str, credential: tuple[str, ...]) -> None:
    with serving(host, scheme=scheme) as server:
        done = run(client, "200", server.module, *JOE, *credential)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert run(client, "200", server.module, *NOBODY, *credential).returncode == 100
        assert run(client, "200", server.module, *STICKY, *credential).returncode == 4
        assert server.logged("? sticky@example.org")
        server.stop()
        log = server.log.read_text()
    assert log.count("+ joe@example.org ") == 200
    assert log.count("- nobody@example.org ") == 1


@CVM
def test_a_benchmark_of_the_command_is_answered_to_its_end(host: Host) -> None:
    with a_module(host, "cvm-command") as module:
        assert run("cvm-benchclient", "5", module.name, *JOE, **module.environment).returncode == 0
        assert run("cvm-benchclient", "5", module.name, *NOBODY, **module.environment).returncode == 100


# -- cvm-checkpassword ----------------------------------------------------------------------------


def checkpassword(module: Module, login: str, *program: str, **environment: str) -> tuple[int, str]:
    """Hands login and password over as qmail-popup does, in descriptor 3."""
    done = run(
        *("sh", "-c", 'exec 3<&0 </dev/null; exec cvm-checkpassword "$@"', "sh", module.name, *program),
        given=f"{login}\0a password\0\0".encode(),
        **{**module.environment, **environment},
    )
    return done.returncode, done.stdout.decode()


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_checkpassword_becomes_the_user_of_our_facts(host: Host, scheme: str) -> None:
    program = ("sh", "-c", "id -u; id -g; pwd; echo $USER $DOMAIN $HOME $MAILBOX")
    home = host.root / "home/joe"
    with a_module(host, scheme, "open sesame") as module:
        status, output = checkpassword(module, "joe@example.org", *program)
        assert (status, output) == (0, f"5001\n5001\n{home}\njoe example.org {home} {home}\n")
        assert checkpassword(module, "nobody@example.org", *program) == (100, "")
        assert checkpassword(module, "sticky@example.org", *program) == (4, "")


@CVM
def test_checkpassword_takes_nobody_in_where_passwords_should_be_checked(host: Host) -> None:
    with a_module(host, "cvm-local", None) as module:
        assert checkpassword(module, "joe@example.org", "echo", "in") == (6, "")


# -- chains ---------------------------------------------------------------------------------------


@contextmanager
def two_servers(host: Host) -> Iterator[tuple[Server, Server]]:
    """One for example.org, one for second.example."""
    with temporary_directory() as directory:
        second = plain_host(directory)
        second.control("locals", "second.example\n")
        with serving(host) as server, serving(second) as other:
            yield server, other


def chained(first: Server, second: Server) -> Module:
    """cvm-chain in front of both."""
    names = {"CVM_CHAIN1": first.module, "CVM_CHAIN2": second.module, "CVM_LOOKUP_SECRET": ""}
    return Module(f"cvm-command:{beside('cvm-testclient', 'cvm-chain')}", names)


def listed(first: Server, second: Server) -> Module:
    """The list of modules that the client's library takes."""
    return Module(f"{first.module},{second.module}", {"CVM_LOOKUP_SECRET": ""})


Chain = Callable[[Server, Server], Module]


@CVM
@pytest.mark.parametrize("chain", [chained, listed])
def test_a_chain_goes_on_to_the_module_whose_domain_it_is(host: Host, chain: Chain) -> None:
    with two_servers(host) as (first, second):
        module = chain(first, second)
        assert module.ask("cvm-testclient", *JOE) == (0, facts_of_joe(host), "")
        status, output, _ = module.ask("cvm-testclient", "joe", "second.example")
        assert status == 0
        assert re.search("^domain: *second.example$", output, re.MULTILINE)
        assert first.logged("- joe@second.example - remote ")
        assert second.logged("+ joe@second.example joe ")
        assert module.ask("cvm-testclient", "nobody", "second.example")[:2] == (100, "out of scope:     0\n")
        assert module.ask("cvm-testclient", *ELSEWHERE)[:2] == (100, "out of scope:     1\n")


@CVM
@pytest.mark.parametrize("chain", [chained, listed])
def test_a_chain_stops_at_a_temporary_failure(host: Host, chain: Chain) -> None:
    with two_servers(host) as (first, second):
        module = chain(first, second)
        assert module.ask("cvm-testclient", *STICKY)[0] == 4
        second.stop()
        assert "sticky" not in second.log.read_text()


# -- mailfront ------------------------------------------------------------------------------------


def smtp(*recipients: str, **environment: str) -> list[str]:
    """What mailfront answers to each recipient of one SMTP session."""
    commands = ["EHLO client.example", "MAIL FROM:<sender@client.example>"]
    commands += [f"RCPT TO:<{recipient}>" for recipient in recipients]
    given = "".join(f"{command}\r\n" for command in [*commands, "QUIT"]).encode()
    done = run("mailfront", "smtp", "echo", "cvm-validate", "accept", given=given, **environment)
    replies = [line for line in done.stdout.decode().splitlines() if line[3] == " "]
    assert replies[2] == "250 Sender='sender@client.example'."
    assert replies[-1].startswith("221 ")
    return replies[3:-1]


ACCEPTED = "250 Recipient='{}'."
NO_SUCH = "553 5.1.1 Sorry, that recipient does not exist."
FAILED = "451 4.1.0 Sorry, I could not verify that recipient (internal temporary error)."
ADDRESSES = ["joe@example.org", "nobody@example.org", "sticky@example.org", "joe@elsewhere.example", "ann-x@v.example"]


@MAILFRONT
@pytest.mark.parametrize("secret", ["", "open sesame"], ids=["no secret", "secret"])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_mailfront_smtp_answers_250_553_451_and_leaves_other_domains_to_others(
    host: Host, scheme: str, secret: str
) -> None:
    with a_module(host, scheme, secret) as module:
        joe, nobody, sticky, elsewhere, virtual = smtp(*ADDRESSES, CVM_LOOKUP=module.name, **module.environment)
    assert joe == ACCEPTED.format("joe@example.org")
    assert nobody == NO_SUCH
    assert sticky == FAILED
    assert elsewhere == ACCEPTED.format("joe@elsewhere.example"), "the plug-in accept had the last word"
    assert virtual == NO_SUCH


@MAILFRONT
def test_mailfront_smtp_defers_everybody_while_the_secret_is_wrong(host: Host) -> None:
    with a_module(host, "cvm-local", "open sesame") as module:
        for environment in ({}, {"CVM_LOOKUP_SECRET": "close"}, {"LOOKUP_SECRET": "close"}):
            assert smtp(*ADDRESSES, CVM_LOOKUP=module.name, **environment) == [FAILED] * 5
        right = smtp("joe@example.org", CVM_LOOKUP=module.name, LOOKUP_SECRET="open sesame")
        assert right == [ACCEPTED.format("joe@example.org")]


@MAILFRONT
def test_mailfront_smtp_defers_everybody_while_the_control_files_cannot_be_read(host: Host) -> None:
    with a_module(host, "cvm-local") as module:
        assert smtp("joe@example.org", CVM_LOOKUP=module.name) == [ACCEPTED.format("joe@example.org")]
        (host.root / "control/virtualdomains").unlink()
        host.directory("control/virtualdomains")
        assert smtp(*ADDRESSES, CVM_LOOKUP=module.name) == [FAILED] * 5


@MAILFRONT
def test_mailfront_smtp_defers_while_no_server_answers(host: Host) -> None:
    with serving(host) as server:
        assert server.stop() == 0
        assert smtp("joe@example.org", "nobody@example.org", CVM_LOOKUP=server.module) == [FAILED] * 2


def netstring(text: str) -> str:
    return f"{len(text)}:{text},"


def qmtp(recipient: str, **environment: str) -> str:
    """What mailfront answers to one recipient over QMTP, without its netstring."""
    message = [netstring("\nSubject: x\n\nx\n"), netstring("sender@client.example"), netstring(netstring(recipient))]
    done = run("mailfront", "qmtp", "echo", "cvm-validate", "accept", given="".join(message).encode(), **environment)
    reply = done.stdout.decode()
    length, _, text = reply.partition(":")
    assert reply == netstring(text[: int(length)])
    return text[:-1]


@MAILFRONT
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
def test_mailfront_qmtp_answers_k_d_and_z(host: Host, scheme: str) -> None:
    with a_module(host, scheme, "open sesame") as module:
        answers = [qmtp(address, CVM_LOOKUP=module.name, **module.environment) for address in ADDRESSES]
    joe, nobody, sticky, elsewhere, virtual = answers
    assert joe.startswith("K")
    assert nobody == "D" + NO_SUCH[4:]
    assert sticky == "Z" + FAILED[4:]
    assert elsewhere.startswith("K")
    assert virtual == nobody
