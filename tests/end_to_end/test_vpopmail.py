"""The programs that log vpopmail's users in and ask about their addresses, as they are.

One host has an account, an alias, a list, a locked account and catch-alls; mailfront, cvm's clients, a
chain of modules and a web application ask about them.
"""

from __future__ import annotations

import base64
import hmac
import os
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cdblib
import pytest
from end_to_end.programs import beside, clean_environment, run
from hosts import CORPUS, assign_records, cdb_bytes, load, temporary_directory
from serving import CVM_QMAIL, PATIENCE, Server, serving
from vcorpus import CVM_VPOPMAIL, login_fault
from vhosts import AS_THE_ORIGINALS, VHost, materialise, outcome, recipient, welcome

from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Credential

CVM = pytest.mark.peer("cvm-testclient")
MAILFRONT = pytest.mark.peer("mailfront")
pytestmark = pytest.mark.root

VPOPMAIL = 89
"""The corpus's vpopmail: user and group."""

RIGHT, WRONG = "UserPass1", "userpass1"
"""bob's password, and not bob's password."""


# -- the host ---------------------------------------------------------------------------------------


def mixed_host(root: Path) -> VHost:
    """Of the corpus's build with clear passwords, with more addresses."""
    host = materialise(load(CORPUS / "vpopmail/clear-text.json"), root)
    own(host, "example.com/.qmail-info", "&somebody@elsewhere.example\n")
    own(host, "example.com/.qmail-list", "|/usr/bin/ezmlm/ezmlm-send list\n")
    own(host, "example.com/.qmail-list-default", "|/usr/bin/ezmlm/ezmlm-manage list\n")
    own(host, "example.com/bob/Maildir/new/1.1.mail", "Subject: good morning\n\nA message.\n")
    accounts = host.domains / "example.com/vpasswd.cdb"
    records = list(cdblib.Reader(accounts.read_bytes()).iteritems())
    name, apop, _, *rest = dict(records)[b"bob"].split(b":")
    accounts.write_bytes(cdb_bytes([*records, (b"locked", b":".join([name, apop, b"16", *rest]))]))
    catch_all(host, "all.example", "bob@example.com")
    catch_all(host, "gone.example", "delete")
    lines = [f"+{domain}-:{domain}:89:89:{host.domains}/{domain}:-::" for domain in DOMAINS]
    (root / "var/qmail/users/cdb").write_bytes(cdb_bytes(assign_records(lines)))
    virtual = "".join(f"{domain}:{domain}\n" for domain in DOMAINS)
    (root / "var/qmail/control/virtualdomains").write_text(virtual)
    (root / "var/qmail/control/rcpthosts").write_text(
        "".join(f"{domain}\n" for domain in (*DOMAINS, "mail.test.example"))
    )
    return host


DOMAINS = ("example.com", "all.example", "gone.example")

ADDRESSES = {
    "bob@example.com": "an account",
    "info@example.com": "an alias",
    "list@example.com": "a list",
    "list-subscribe@example.com": "its robot",
    "anybody@all.example": "a catch-all",
    "postmaster@mail.test.example": "qmail's own",
}
"""What exists."""

NOWHERE = {
    "nobody@example.com": "unknown",
    "locked@example.com": "locked",
    "anybody@gone.example": "a catch-all that throws away",
}
"""What does not."""


def own(host: VHost, path: str, text: str = "") -> None:
    """A file of vpopmail's below the domains' directory."""
    file = host.domains / path
    file.write_text(text)
    file.chmod(0o600)
    os.chown(file, VPOPMAIL, VPOPMAIL)


def catch_all(host: VHost, domain: str, argument: str) -> None:
    """A domain without accounts."""
    directory = host.domains / domain
    directory.mkdir(mode=0o700)
    os.chown(directory, VPOPMAIL, VPOPMAIL)
    own(host, f"{domain}/.qmail-default", f"| {host.root}/home/vpopmail/bin/vdelivermail '' {argument}\n")
    (directory / "vpasswd.cdb").write_bytes(cdb_bytes([]))
    (directory / "vpasswd.cdb").chmod(0o644)


@pytest.fixture(scope="module")
def host() -> Iterator[VHost]:
    with temporary_directory() as root:
        yield mixed_host(root)


def started(host: VHost, program: Path = CVM_VPOPMAIL, **how: Any) -> Any:
    """A server; without a secret it answers logins."""
    return serving(host, program=program, **{"CVM_LOOKUP_SECRET": None, **how})


SECRET = "open sesame"


@pytest.fixture(scope="module")
def rcptto(host: VHost) -> Iterator[Server]:
    """cvm-qmail with its plug-in, behind a secret."""
    with started(host, CVM_QMAIL, CVM_LOOKUP_SECRET=SECRET) as server:
        yield server


@pytest.fixture(scope="module")
def logins(host: VHost) -> Iterator[Server]:
    """cvm-vpopmail for SMTP AUTH, with a default domain."""
    with started(host, VPOPMAIL_DOMAIN="example.com") as server:
        yield server


# -- mailfront: AUTH and RCPT in one session --------------------------------------------------------


def coded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Session:
    """A conversation with a program on its standard input and output."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().decode().rstrip("\r\n")

    def say(self, command: str) -> str:
        """Says a line; what comes back."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\r\n".encode())
        self._process.stdin.flush()
        return self.line()


@contextmanager
def session(*command: str, **environment: str) -> Iterator[Session]:
    """A program to talk to, until it ends by itself."""
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=clean_environment(environment),
    ) as process:
        try:
            yield Session(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


class Smtp(Session):
    """An SMTP session."""

    @classmethod
    @contextmanager
    def with_mailfront(cls, *plugins: str, **environment: str) -> Iterator[Smtp]:
        with session("mailfront", "smtp", "echo", "cvm-authenticate", *plugins, **environment) as talk:
            smtp = cls(talk._process)
            assert smtp.line().startswith("220 ")
            yield smtp
            assert smtp.say("QUIT").startswith("221 ")

    def say(self, command: str) -> str:
        """Says a line; the last line of the reply."""
        reply = super().say(command)
        while reply[3:4] == "-":
            reply = self.line()
        return reply

    def offered(self) -> str:
        """The mechanisms that EHLO names."""
        found = ""
        reply = super().say("EHLO client.example")
        while reply[3:4] == "-":
            found = reply.removeprefix("250-AUTH ") if reply.startswith("250-AUTH ") else found
            reply = self.line()
        return found

    def plain(self, user: str, password: str) -> str:
        return self.say("AUTH PLAIN " + coded(f"\0{user}\0{password}"))

    def login(self, user: str, password: str) -> str:
        assert self.say("AUTH LOGIN") == "334 " + coded("Username:")
        reply = self.say(coded(user))
        return self.say(coded(password)) if reply == "334 " + coded("Password:") else reply

    def cram_md5(self, user: str, password: str) -> str:
        challenge = base64.b64decode(self.say("AUTH CRAM-MD5").removeprefix("334 "))
        return self.say(coded(f"{user} {hmac.new(password.encode(), challenge, 'md5').hexdigest()}"))

    def auth(self, mechanism: str, user: str, password: str) -> str:
        ways = {"PLAIN": self.plain, "LOGIN": self.login, "CRAM-MD5": self.cram_md5}
        return ways[mechanism](user, password)


def sasl(server: Server, *mechanisms: str) -> dict[str, str]:
    return {f"CVM_SASL_{mechanism}": server.module for mechanism in mechanisms}


IN = "235 2.7.0 Authentication succeeded."
OUT = "501 Authentication failed."
LATER = "451 Internal error."
NO_SUCH = "553 5.1.1 Sorry, that recipient does not exist."

PAIRS = {
    ("PLAIN",): "LOGIN PLAIN",
    ("PLAIN", "LOGIN"): "LOGIN PLAIN",
    ("PLAIN", "CRAM_MD5"): "LOGIN CRAM-MD5",
    ("LOGIN", "CRAM_MD5"): "LOGIN",
    ("CRAM_MD5",): "CRAM-MD5",
    ("PLAIN", "LOGIN", "CRAM_MD5"): "LOGIN CRAM-MD5",
}
"""The variables CVM_SASL_... that are set, and what libcvm 0.97 then offers: never more than two."""


@MAILFRONT
@pytest.mark.parametrize(
    ("variables", "offered"), PAIRS.items(), ids=lambda value: value if isinstance(value, str) else "+".join(value)
)
def test_auth_then_rcpt_in_one_session(
    host: VHost, rcptto: Server, logins: Server, variables: tuple[str, ...], offered: str
) -> None:
    lookup = {
        "CVM_LOOKUP": rcptto.module,
        "CVM_LOOKUP_SECRET": SECRET,
        "QMAILHOME": str(host.root / "var/qmail"),
    }
    plugins = ("cvm-validate", "relayclient", "qmail-validate")
    for mechanism in offered.split():
        with Smtp.with_mailfront(*plugins, **sasl(logins, *variables), **lookup) as smtp:
            assert smtp.offered() == offered
            assert smtp.say("MAIL FROM:<bob@example.com>").startswith("250 ")
            assert smtp.say("RCPT TO:<bob@elsewhere.example>").startswith("550 "), "nobody has logged in yet"
            for user, password in (
                ("bob@example.com", WRONG),
                ("nobody@example.com", RIGHT),
                ("info@example.com", RIGHT),
                ("nosmtp@example.com", RIGHT),
                ("bob@elsewhere.example", RIGHT),
            ):
                assert smtp.auth(mechanism, user, password) == OUT, user
            assert smtp.auth(mechanism, "Bob@Example.com", RIGHT) == IN
            for address, why in ADDRESSES.items():
                assert smtp.say(f"RCPT TO:<{address}>") == f"250 Recipient='{address}'.", why
            for address, why in NOWHERE.items():
                assert smtp.say(f"RCPT TO:<{address}>") == NO_SUCH, why
            assert smtp.say("RCPT TO:<bob@elsewhere.example>").startswith("250 "), "bob may send anywhere"


@MAILFRONT
@pytest.mark.parametrize("mechanism", ["LOGIN", "PLAIN", "CRAM-MD5"])
@pytest.mark.parametrize("user", ["bob", "bob%example.com", "bob/example.com", "bob@EXAMPLE.com", "BOB"])
def test_smtp_leaves_the_splitting_of_a_login_to_us(logins: Server, user: str, mechanism: str) -> None:
    variables = sasl(logins, "CRAM_MD5") if mechanism == "CRAM-MD5" else sasl(logins, "PLAIN")
    with Smtp.with_mailfront(**variables, TCPLOCALHOST="unknown") as smtp:
        assert smtp.auth(mechanism, user, WRONG) == OUT
        assert smtp.auth(mechanism, user, RIGHT) == IN


@MAILFRONT
def test_libcvm_decodes_the_response_one_digit_too_early_and_bob_gets_in(host: VHost, directory: Path) -> None:
    tap, cvm = directory / "request", directory / "cvm"
    cvm.write_text(f"#!/bin/sh\ntee {tap} | {CVM_VPOPMAIL}\n")
    cvm.chmod(0o755)
    environment = {name: value for name, value in host.environment.items() if name != "CVM_LOOKUP_SECRET"}
    with Smtp.with_mailfront(CVM_SASL_CRAM_MD5=f"cvm-command:{cvm}", **environment) as smtp:
        challenge = base64.b64decode(smtp.say("AUTH CRAM-MD5").removeprefix("334 "))
        digest = hmac.new(RIGHT.encode(), challenge, "md5").hexdigest()
        assert smtp.say(coded(f"bob@example.com {digest}")) == IN
    sent = packets.parse_request(tap.read_bytes()).credentials
    assert sent[Credential.CHALLENGE] == challenge
    assert sent[Credential.RESPONSE] == bytes.fromhex("f" + digest[:31])
    assert sent[Credential.RESPONSE_TYPE] == b"CRAM-MD5"
    assert Credential.PASSWORD not in sent


@pytest.fixture
def directory() -> Iterator[Path]:
    with temporary_directory() as made:
        yield made


@MAILFRONT
def test_bob_is_to_try_later_while_accounts_cannot_be_read_or_no_server_answers() -> None:
    with temporary_directory() as root, started(host := mixed_host(root)) as server:
        accounts = host.domains / "example.com/vpasswd.cdb"
        accounts.write_bytes(accounts.read_bytes()[:3000])
        with Smtp.with_mailfront(**sasl(server, "PLAIN")) as smtp:
            assert smtp.plain("bob@example.com", RIGHT) == LATER
            assert server.logged("? bob@example.com ")
            server.stop()
            assert smtp.plain("bob@example.com", RIGHT) == LATER


# -- POP3 and IMAP ----------------------------------------------------------------------------------

SPLIT = {"CVM_ACCOUNT_SPLIT_CHARS": "@%/"}

FRONT_END_LOGINS: list[tuple[str, Mapping[str, str], bool]] = [
    ("bob@example.com", {}, True),
    ("BOB@Example.COM", {"TCPLOCALHOST": "mx.example.org"}, True),
    ("bob@elsewhere.example", {}, False),
    # the front end says that the domain is "unknown", or this host
    ("bob", {}, False),
    ("bob", {"TCPLOCALHOST": "unknown"}, False),
    ("bob", {"TCPLOCALHOST": "mx.example.org"}, False),
    ("bob%example.com", {}, False),
    ("bob%example.com", {"TCPLOCALHOST": "mx.example.org"}, False),
    # so the splitting must be its own
    ("bob%example.com", SPLIT, True),
    ("bob/example.com", {"TCPLOCALHOST": "mx.example.org", **SPLIT}, True),
    ("bob", {"TCPLOCALHOST": "example.com"}, True),
    # or it must have nothing to say: then it is ours, and so is the default domain
    ("bob", {"TCPLOCALHOST": ""}, True),
    ("bob%example.com", {"TCPLOCALHOST": ""}, True),
]
"""Login, environment of the front end, whether bob gets in."""


def test_front_end_logins_are_shown_with_a_default_domain(logins: Server) -> None:
    assert client.ask(logins.module, b"bob", None, password=RIGHT.encode()).code == 0


@MAILFRONT
@pytest.mark.peer("pop3front-auth", "pop3front-maildir")
def test_pop3_gives_bob_his_mail(host: VHost) -> None:
    with started(host, CVM_VPOPMAIL_SERVICE="pop3") as server:
        command = ("pop3front-auth", server.module, "pop3front-maildir")
        with session(*command) as pop3:
            assert pop3.line().startswith("+OK")
            for user, password in (("bob@example.com", WRONG), ("nobody@example.com", RIGHT)):
                assert pop3.say(f"USER {user}").startswith("+OK")
                assert pop3.say(f"PASS {password}") == "-ERR Authentication failed"
            assert pop3.say("USER bob@example.com").startswith("+OK")
            assert pop3.say(f"PASS {RIGHT}").startswith("+OK")
            assert pop3.say("STAT") == "+OK 1 34"
            assert pop3.say("RETR 1").startswith("+OK")
            assert [pop3.line() for _ in range(5)] == ["Subject: good morning", "", "A message.", "", "."]
            assert pop3.say("QUIT").startswith("+OK")
        for line in ("- bob@example.com ", "- nobody@example.com ", "+ bob@example.com "):  # by several workers
            assert server.logged(line)


@MAILFRONT
@pytest.mark.peer("pop3front-auth")
@pytest.mark.parametrize(("user", "environment", "welcome"), FRONT_END_LOGINS)
def test_pop3_logins(logins: Server, user: str, environment: dict[str, str], welcome: bool) -> None:
    with session("pop3front-auth", logins.module, "sh", "-c", "echo $(id -u) $USER", **environment) as pop3:
        pop3.line()
        pop3.say(f"USER {user}")
        said = pop3.say(f"PASS {RIGHT}")
    assert said == (f"{VPOPMAIL} bob" if welcome else "-ERR Authentication failed")


@MAILFRONT
@pytest.mark.peer("imapfront-auth")
@pytest.mark.parametrize(("user", "environment", "welcome"), FRONT_END_LOGINS)
def test_imap_logins(logins: Server, user: str, environment: dict[str, str], welcome: bool) -> None:
    program = ("sh", "-c", "echo $(id -u) $AUTHENTICATED $MAILDIR")
    with session("imapfront-auth", *program, **sasl(logins, "PLAIN"), **environment) as imap:
        imap.line()
        said = imap.say(f"a LOGIN {user} {RIGHT}")
    assert said.startswith(f"{VPOPMAIL} bob" if welcome else "a NO LOGIN failed")


@MAILFRONT
@pytest.mark.peer("imapfront-auth")
def test_imap_is_a_service_of_its_own(host: VHost) -> None:
    with started(host, CVM_VPOPMAIL_SERVICE="imap") as server:
        for user, password, said in (
            ("nosmtp@example.com", RIGHT, f"nosmtp {host.domains}/example.com/nosmtp/Maildir/"),
            ("bob@example.com", WRONG, "a NO LOGIN failed"),
        ):
            with session("imapfront-auth", "sh", "-c", "echo $USER $MAILBOX", **sasl(server, "PLAIN")) as imap:
                imap.line()
                assert imap.say(f"a LOGIN {user} {password}") == said


# -- cvm's own clients ------------------------------------------------------------------------------


def facts_of_bob(host: VHost) -> str:
    home = host.domains / "example.com/bob"
    return f"""\
user name:        bob
user ID:          89
group ID:         89
real name:        bob
directory:        {home}
shell:            NOQUOTA
group name:       (null)
system user name: (null)
system directory: (null)
domain:           example.com
mailbox path:     {home}/Maildir/
"""


@contextmanager
def a_module(host: VHost, scheme: str, secret: str | None = None) -> Iterator[tuple[str, dict[str, str]]]:
    """cvm-vpopmail's name for clients, and the environment they need; a `secret` makes it look up."""
    shown = {} if secret is None else {"CVM_LOOKUP_SECRET": secret}
    if scheme == "cvm-command":
        environment = {name: value for name, value in host.environment.items() if name != "CVM_LOOKUP_SECRET"}
        yield f"cvm-command:{CVM_VPOPMAIL}", {**environment, **shown}
    else:
        with started(host, scheme=scheme, CVM_LOOKUP_SECRET=secret) as server:
            yield server.module, shown


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_testclient_checks_a_password_and_prints_who_it_is(host: VHost, scheme: str) -> None:
    with a_module(host, scheme) as (module, environment):

        def said(*arguments: str) -> tuple[int, str]:
            done = run("cvm-testclient", module, *arguments, **environment)
            return done.returncode, done.stdout.decode()

        assert said("bob", "example.com", RIGHT) == (0, facts_of_bob(host))
        assert said("bob@example.com", "", RIGHT) == (0, facts_of_bob(host))
        assert said("bob%example.com", "", RIGHT) == (0, facts_of_bob(host))
        assert said("bob", "example.com", WRONG) == (100, "out of scope:     0\n")
        assert said("nobody", "example.com", RIGHT) == (100, "out of scope:     0\n")
        assert said("bob", "elsewhere.example", RIGHT) == (100, "out of scope:     1\n")
        assert said("bob", "example.com")[0] == 7, "no password at all"


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_testclient_looks_an_account_up(host: VHost, scheme: str) -> None:
    with a_module(host, scheme, SECRET) as (module, environment):

        def code(account: str, domain: str, **more: str) -> int:
            return run("cvm-testclient", module, account, domain, **{**environment, **more}).returncode

        assert run("cvm-testclient", module, "bob", "example.com", **environment).stdout.decode() == facts_of_bob(host)
        assert code("info", "example.com") == code("list-help", "example.com") == code("x", "all.example") == 0
        assert code("nobody", "example.com") == code("locked", "example.com") == code("x", "gone.example") == 100
        if scheme != "cvm-command":  # whose secret is its caller's
            assert code("bob", "example.com", CVM_LOOKUP_SECRET="close") == 7


@CVM
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp", "cvm-command"])
def test_checkpassword_becomes_the_domains_owner(host: VHost, scheme: str) -> None:
    home = host.domains / "example.com/bob"
    with a_module(host, scheme) as (module, environment):

        def said(login: str, password: str) -> tuple[int, str]:
            done = run(
                *("sh", "-c", 'exec 3<&0 </dev/null; exec cvm-checkpassword "$@"', "sh", module),
                *("sh", "-c", "id -u; id -g; pwd; echo $USER $DOMAIN $HOME $MAILBOX"),
                given=f"{login}\0{password}\0\0".encode(),
                **environment,
            )
            return done.returncode, done.stdout.decode()

        inside = 0, f"89\n89\n{home}\nbob example.com {home} {home}/Maildir/\n"
        assert said("bob@example.com", RIGHT) == inside
        assert said("bob%example.com", RIGHT) == inside
        assert said("bob@example.com", WRONG) == (100, "")
        assert said("nobody@example.com", RIGHT) == (100, "")


# -- a chain of modules -----------------------------------------------------------------------------

CHAINED = ("basic-cdb", "catchall", "dotqmail-aliases", "domains-routing")


@CVM
@pytest.mark.parametrize("name", CHAINED)
def test_a_chain_of_both_says_what_the_plugin_says(name: str) -> None:
    """cvm-chain goes on after any 100, and says "out of scope" only if both do."""
    system = load(CORPUS / f"vpopmail/{name}.json")
    with temporary_directory() as root, ThreadPoolExecutor(4) as pool:
        host = materialise(system, root)
        aside = f"{root}/home/vpopmail/bin/vdelivermail"
        with (
            serving(host, **AS_THE_ORIGINALS) as plugin,
            serving(host, CVM_QMAIL_LOOKASIDE=aside, **AS_THE_ORIGINALS) as first,
            started(host, CVM_LOOKUP_SECRET="", **AS_THE_ORIGINALS) as second,
        ):
            together = pool.map(lambda case: chain(first, second, case), system["cases"])
            for case, chained in zip(system["cases"], together, strict=True):
                alone = plugin.ask(*recipient(case))
                assert (chained.code, outcome(chained)) == (alone.code, outcome(alone)), case
            assert first.logged(" lookaside ")


def chain(first: Server, second: Server, case: Mapping[str, Any]) -> packets.Response:
    """What cvm-chain says of a recipient."""
    account, domain = recipient(case)
    credentials = {Credential.ACCOUNT: account, Credential.SECRET: b"x"}
    if domain is not None:
        credentials[Credential.DOMAIN] = domain
    done = run(
        beside("cvm-testclient", "cvm-chain"),
        given=packets.pack_request(packets.Request(2, b"", credentials)),
        CVM_CHAIN1=first.module,
        CVM_CHAIN2=second.module,
        CVM_LOOKUP_SECRET="",
    )
    return packets.parse_response(done.stdout)


# -- a web application ------------------------------------------------------------------------------


def may_log_in(module: str, login: str, password: str) -> bool | None:
    """What a web application needs to know; None: ask again later."""
    try:
        answer = client.ask(module, login.encode(), password=password.encode(), timeout=5)
    except client.NoAnswer:
        return None
    return {0: True, 100: False}.get(answer.code)


def test_a_web_application_checks_a_password_over_the_socket(host: VHost) -> None:
    with started(host, CVM_VPOPMAIL_SERVICE="webmail") as server:
        assert may_log_in(server.module, "bob@example.com", RIGHT) is True
        assert may_log_in(server.module, "utf@example.com", "päss") is True
        assert may_log_in(server.module, "bob@example.com", WRONG) is False
        assert may_log_in(server.module, "nobody@example.com", RIGHT) is False
        assert may_log_in(server.module, "info@example.com", RIGHT) is False
        server.stop()
        assert may_log_in(server.module, "bob@example.com", RIGHT) is None
        log = server.log.read_text() + server.errors.read_text()
    assert RIGHT not in log
    assert "$6$" not in log


# -- command mode -----------------------------------------------------------------------------------


def test_the_command_answers_one_request_on_standard_input(host: VHost) -> None:
    bob = {Credential.ACCOUNT: b"bob", Credential.DOMAIN: b"example.com"}
    environment = {name: value for name, value in host.environment.items() if name != "CVM_LOOKUP_SECRET"}

    def said(more: Mapping[int, bytes], **variables: str) -> int:
        request = packets.pack_request(packets.Request(2, b"nonce", {**bob, **more}))
        done = run(CVM_VPOPMAIL, given=request, **environment, **variables)
        response = packets.parse_response(done.stdout)
        assert (done.returncode, response.nonce) == (response.code, b"nonce")
        return response.code

    assert said({}, CVM_LOOKUP_SECRET="") == 0
    assert said({Credential.ACCOUNT: b"nobody"}, CVM_LOOKUP_SECRET="") == 100
    assert said({Credential.PASSWORD: RIGHT.encode()}) == 0
    assert said({Credential.PASSWORD: WRONG.encode()}) == 100
    challenge = {Credential.CHALLENGE: b"<1@mx>", Credential.RESPONSE_TYPE: b"CRAM-MD5"}
    digest = hmac.new(RIGHT.encode(), b"<1@mx>", "md5").hexdigest().encode()
    assert said({**challenge, Credential.RESPONSE: digest}) == 0
    assert said({**challenge, Credential.RESPONSE: digest[::-1]}) == 100


# -- least rights -----------------------------------------------------------------------------------


LEAST = [
    pytest.param(("setpriv", "--reuid=89", "--regid=89", "--clear-groups"), marks=pytest.mark.peer("setpriv")),
    pytest.param(("chpst", "-u", ":89:89"), marks=pytest.mark.peer("chpst")),
]
"""Ways to give all rights away but vpopmail's."""


@pytest.mark.parametrize("wrapper", LEAST, ids=lambda wrapper: wrapper[0])
def test_vpopmails_own_user_is_enough_where_it_owns_all_domains(wrapper: tuple[str, ...]) -> None:
    if run(*wrapper, CVM_VPOPMAIL, "--version").returncode:
        pytest.skip(f"VPOPMAIL MAY NOT RUN {CVM_VPOPMAIL}: the interpreter or the package is in a private directory")
    system = load(CORPUS / "vpopmail/basic-cdb.json")
    with temporary_directory() as root, temporary_directory() as directory:
        host = materialise(system, root)
        os.chown(directory, VPOPMAIL, VPOPMAIL)
        how = {"wrapper": wrapper, "path": directory / "socket", **AS_THE_ORIGINALS}
        with started(host, CVM_LOOKUP_SECRET="", **how) as server:
            assert Path(f"/proc/{server.process.pid}").stat().st_uid == VPOPMAIL
            answers = [(case, outcome(server.ask(*recipient(case)))) for case in system["cases"]]
            log = server.log.read_text()
        assert not [(case, got) for case, got in answers if got != "remote" and not welcome("basic-cdb", case, got)]
        assert not [case for case, got in answers if got == "remote" and case["domain"] in VPOPMAIL_DOMAINS]
        with started(host, **how) as server:
            assert not list(filter(None, (login_fault("basic-cdb", server.module, c) for c in system["auth_cases"])))
    assert "internal-error" not in log


VPOPMAIL_DOMAINS = ("example.com", "second.example", "alias.example")
