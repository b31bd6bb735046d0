"""cvmctl trace: what it says is what the server says, for every address; and how it says it."""

from __future__ import annotations

import io
import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from calling import called
from hosts import Host, as_bytes, load, materialise, systems, temporary_directory
from serving import AN_HOUR, PLUGINS, Server, environment, serving

from cvm_qmail.answer import Recipient
from cvm_qmail.cvmctl.trace import capture
from cvm_qmail.cvmctl.trace.command import as_bytes as bytes_of
from cvm_qmail.cvmctl.trace.command import facts, full, node
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import recipient_of
from cvm_qmail.pipeline import make_responder
from cvm_qmail.plugin import Module
from cvm_qmail.protocols.cvm import packets
from cvm_qmail.protocols.cvm.packets import Credential
from cvm_qmail.qmail import qmail
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.program import plugin

pytestmark = pytest.mark.root

CVMCTL = Path(sys.executable).with_name("cvmctl")
SYSTEMS = systems("qmail")


def cvmctl(*arguments: str, host: Host | None = None, **more: str | None) -> subprocess.CompletedProcess[str]:
    return called(*arguments, env=environment(host, more))


def traced(host: Host, *addresses: str, **more: str | None) -> list[dict[str, Any]]:
    done = cvmctl("trace", "--json", *addresses, host=host, **more)
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def shown(host: Host, *arguments: str, **more: str) -> str:
    """What a pipe gets, with the host's own paths made short; without another process if there are no options."""
    if arguments[0].startswith("-"):
        return cvmctl("trace", *arguments, host=host, **more).stdout.replace(str(host.root), "")
    out = io.StringIO()
    with redirect_stdout(out):
        output.tree(node(reported(host, address, **more)) for address in arguments)
    return out.getvalue().replace(str(host.root), "")


def reported(host: Host, address: str, **more: str) -> dict[str, Any]:
    """The report on an address."""
    settings = Settings.from_environment({**host.environment, **more})
    return full(capture.look_up(recipient_of(os.fsencode(address)), settings, with_plugin), "cvm-qmail")


# -- it cannot say anything else than the server ------------------------------------------------------


def server_of(settings: Settings) -> Callable[[Recipient], packets.Response]:
    """A server's way from packet to packet, without its socket."""
    tables = Tables(settings)
    respond = make_responder(tables, with_plugin(tables, settings), settings._replace(lookup_secret=b""), [])

    def ask(recipient: Recipient) -> packets.Response:
        given = {Credential.ACCOUNT: recipient.account, Credential.DOMAIN: recipient.domain}
        packet = packets.pack_request(packets.Request(2, b"", {k: v for k, v in given.items() if v is not None}))
        return packets.parse_response(respond(packet))

    return ask


def with_plugin(tables: Tables, settings: Settings) -> Module:
    """cvm-qmail with the plug-in, without looking for it among all that is installed."""
    return qmail(tables, settings, [plugin(tables, settings)])


WORDS = {"accepted": "deliver", "rejected": "no-mailbox", "out of scope": "remote", "temporary failure": "defer"}


@pytest.mark.parametrize("path", SYSTEMS, ids=lambda path: path.stem)
def test_every_verdict_of_the_corpus_is_the_servers(path: Path) -> None:
    system = load(path)
    with temporary_directory() as root:
        settings = Settings.from_environment(materialise(system, root).environment)
        ask = server_of(settings)
        for case in system["cases"]:
            recipient = Recipient(as_bytes(case["local"]), None if case["domain"] is None else as_bytes(case["domain"]))
            report = full(capture.look_up(recipient, settings, with_plugin), "cvm-qmail")
            response = ask(recipient)
            assert (report["code"], report["facts"]) == (response.code, facts(response)), case
            assert WORDS[report["verdict"]] == case["expect"], case
            user = case.get("detail", {}).get("user")
            if user is not None and case["expect"] in ("deliver", "no-mailbox"):
                assert user_of(report) == user.encode("latin-1").decode("utf-8", "surrogateescape"), case


def user_of(report: dict[str, Any]) -> str | None:
    """The user that the explanation ends with."""
    steps = [step for stage in report["stages"] for step in stage["steps"] if step["table"] == "user"]
    return steps[-1]["key"] if steps else None


@pytest.mark.parametrize("name", ["cdb-basic", "odd-bytes-in-local-part", "control-me-is-directory"])
def test_the_running_server_says_the_same(name: str) -> None:
    system = load(next(path for path in SYSTEMS if path.stem == name))
    cases = [case for case in system["cases"] if "\0" not in case["local"] + (case["domain"] or "")]
    addresses = [as_bytes(case["local"] + "@" + case["domain"]) for case in cases if case["domain"] is not None]
    with temporary_directory() as root:
        host = materialise(system, root)
        with serving(host) as server:
            done = subprocess.run(
                [CVMCTL, "trace", "--json", "--server", server.module, "--", *addresses],
                env=environment(host, {}),
                capture_output=True,
                check=False,
                timeout=60,
            )
    reports = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(reports) == len(addresses)
    assert [report["server"]["text"] for report in reports if report["server"]["differs"]] == []
    assert {report["server"]["text"] for report in reports} == {f"{server.module} says the same"}


# -- what it looks like -------------------------------------------------------------------------------


def test_a_file_of_ones_own(host: Host) -> None:
    host.file("home/joe/.qmail-foo", "# to ann as well\n&ann@example.org\n|/bin/x --password=sesame\n./Maildir/\n")
    assert (
        shown(host, "joe-foo@example.org")
        == """\
joe-foo@example.org
  qmail-send: where it goes
    percenthack: no entry example.org
    locals: example.org is local (/control/locals line 1)
    so its local part is joe-foo
  qmail-lspawn: who controls it
    users/cdb: no such file
    passwd: no account joe-foo
    passwd: joe has uid 5001, gid 5001, home /home/joe
    home /home/joe belongs to uid 5001, as it should
    so it is user joe, uid 5001, gid 5001, home /home/joe, dash "-", ext "foo"
  qmail-local: the home and its .qmail files
    home /home/joe: mode 0755
    .qmail-foo: mode 0644, 71 bytes
    line 2: forwards to ann@example.org
    line 3: runs /bin/x ...
    line 4: maildir ./Maildir/
  accepted: dotqmail /home/joe/.qmail-foo, user joe
  SMTP: 250, unless another plug-in of mailfront rejects it
"""
    )


def test_a_virtual_domain_and_users_cdb(host: Host) -> None:
    lines = ["=ann:ann:5002:5002:{root}/home/ann:::", "+joe-:joe:5001:5001:{root}/home/joe:-::"]
    host.users(*lines)
    host.file("users/assign", "".join(line.format(root=host.root) + "\n" for line in lines) + ".\n")
    os.utime(host.root / "users/assign", (1, 1))
    assert (
        shown(host, "Nope@V.example")
        == """\
Nope@V.example
  qmail-send: where it goes
    percenthack: no entry v.example
    locals: no entry v.example
    virtualdomains: no entry nope@v.example
    virtualdomains: v.example prepends joe- (/control/virtualdomains line 1)
    so its local part is joe-Nope
  qmail-lspawn: who controls it
    users/cdb: its break characters are "-"
    users/cdb: no entry =joe-nope:
    users/cdb: +joe-:joe:5001:5001:/home/joe:-: (/users/assign line 2)
    so it is user joe, uid 5001, gid 5001, home /home/joe, dash "-", ext "Nope"
  qmail-local: the home and its .qmail files
    home /home/joe: mode 0755
    .qmail-nope: not there
    .qmail-default: not there
  rejected: no-mailbox /home/joe, user joe
  SMTP: 553 5.1.1 Sorry, that recipient does not exist.
  remedy: if the address should exist: make /home/joe/.qmail-nope a regular file (empty: as for joe itself); \
/home/joe/.qmail-default takes all
"""
    )


def test_an_address_without_a_domain_and_one_that_is_elsewhere(host: Host) -> None:
    assert (
        shown(host, "joe", "x@not.w.example")
        == """\
joe
  qmail-send: where it goes
    no domain: envnoathost is mx.example.org (/control/me line 1)
    percenthack: no entry mx.example.org
    locals: no entry mx.example.org
    virtualdomains: no entry joe@mx.example.org
    virtualdomains: no entry mx.example.org
    virtualdomains: no entry .example.org
    virtualdomains: no entry .org
    virtualdomains: no entry ""
    so it is not delivered on this host
  out of scope: remote control/virtualdomains
  SMTP: mailfront never asks about an address without a domain
  remedy: if mx.example.org is delivered here: add it to control/locals, or mx.example.org:USER to \
control/virtualdomains, and send qmail-send HUP
x@not.w.example
  qmail-send: where it goes
    percenthack: no entry not.w.example
    locals: no entry not.w.example
    virtualdomains: no entry x@not.w.example
    virtualdomains: not.w.example is an exception: it stays remote (/control/virtualdomains line 3)
    so it is not delivered on this host
  out of scope: virtual-exception control/virtualdomains
  SMTP: what mailfront's other plug-ins decide, such as the one for rcpthosts
  remedy: if it is delivered here: remove /control/virtualdomains line 3 and send qmail-send HUP
"""
    )


def test_a_temporary_failure(host: Host) -> None:
    (host.root / "home/ann").chmod(0o1755)
    assert shown(host, "ann-x@example.org").endswith(
        """
  qmail-local: the home and its .qmail files
    home /home/ann: mode 1755
  temporary failure: home-sticky /home/ann, user ann (home has mode 1755: the user is editing)
  SMTP: 451 4.1.0 Sorry, I could not verify that recipient (internal temporary error).
  remedy: chmod -t /home/ann
"""
    )


def test_an_empty_local_part_is_thrown_away(host: Host) -> None:
    assert "so its local part is empty: qmail takes the message and throws it away" in shown(host, "@example.org")


def test_percenthack_is_followed(host: Host) -> None:
    host.control("percenthack", "hack.example\n")
    said = shown(host, "joe%example.org@hack.example")
    assert "percenthack: hack.example is listed: the last %, if any, becomes @ (/control/percenthack line 1)" in said
    assert "accepted: mailbox /home/joe, user joe" in said


def test_of_two_lines_for_one_domain_the_one_that_counts_is_named(host: Host) -> None:
    host.control("virtualdomains", "# ours\nv.example:ann\nV.example:joe\n")
    host.control("locals", "# ours\nexample.org\nEXAMPLE.ORG\n")
    assert "v.example prepends joe- (/control/virtualdomains line 3)" in shown(host, "x@v.example")
    assert "example.org is local (/control/locals line 2)" in shown(host, "joe@example.org")


def test_settings_that_make_a_domain_local_are_named(host: Host) -> None:
    said = shown(host, "joe-foo@elsewhere.example", CVM_QMAIL_ASSUME_LOCAL="")
    assert "CVM_QMAIL_ASSUME_LOCAL is set: so it is local\n    so its local part is joe-foo\n" in said
    assert "so it is user joe, uid 5001" in said
    assert "accepted: dotqmail /home/joe/.qmail-foo, user joe" in said
    said = shown(host, "x@elsewhere.example", CVM_QMAIL_MISSINGDOMAIN="", CVM_QMAIL_MISSINGUSER="ann")
    assert "CVM_QMAIL_MISSINGDOMAIN is set: so it is local\n    so its local part is ann\n" in said
    assert "accepted: mailbox /home/ann, user ann" in said


def test_a_missing_locals_is_me(host: Host) -> None:
    (host.root / "control/locals").unlink()
    assert "mx.example.org is local (/control/me line 1)" in shown(host, "joe@mx.example.org")


# -- a running server ---------------------------------------------------------------------------------


def test_a_server_with_other_settings_is_found_out(host: Host) -> None:
    with serving(host, CVM_QMAIL_ALIAS="joe") as server:
        done = cvmctl("trace", "--server", server.module, "foo@example.org", host=host)
    assert done.returncode == 1
    assert f"DIFFERENT: {server.module} answers 0, not 100" in done.stdout


def test_other_facts_are_a_difference_too(host: Host) -> None:
    host.user("eve", 5003)
    with serving(host) as server:
        (host.root / "other").write_text("joe:x:5003:5003::" + str(host.root / "home/eve") + ":/bin/sh\n")
        done = cvmctl(
            "trace",
            "--server",
            server.module,
            "joe@example.org",
            host=host,
            NSS_WRAPPER_PASSWD=str(host.root / "other"),
        )
    assert done.returncode == 1
    assert f"answers 0 too, but with directory {host.root}/home/joe, not {host.root}/home/eve" in done.stdout


def test_a_server_without_a_secret_and_one_with_another_are_explained(host: Host) -> None:
    with serving(host, CVM_LOOKUP_SECRET=None) as server:
        assert "it has no CVM_LOOKUP_SECRET in its environment" in shown(
            host, "--server", server.module, "joe@example.org"
        )
    with serving(host, CVM_LOOKUP_SECRET="sesame") as server:
        said = shown(host, "--server", server.module, "joe@example.org")
        assert "it requires a secret" in said
        assert "says the same" in shown(host, "--server", server.module, "joe@example.org", CVM_LOOKUP_SECRET="sesame")


def test_no_server_is_a_temporary_failure(host: Host) -> None:
    done = cvmctl("trace", "--server", "cvm-local:/nowhere", "joe@example.org", host=host)
    assert done.returncode == 111
    assert "no answer: cvm-local:/nowhere: No such file or directory" in done.stdout


@pytest.mark.peer("mailfront")
def test_the_smtp_reply_is_mailfronts(server: Server, host: Host) -> None:
    (host.root / "home/ann").chmod(0o1755)
    for report in traced(host, "nobody@example.org", "ann@example.org"):
        assert report["smtp"] in _smtp(server, report["address"])


def _smtp(server: Server, address: str) -> str:
    given = f"EHLO c.example\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<{address}>\r\nQUIT\r\n"
    done = subprocess.run(
        ["mailfront", "smtp", "echo", "cvm-validate", "accept"],
        env={**os.environ, "CVM_LOOKUP": server.module, "CVM_LOOKUP_SECRET": ""},
        input=given.encode(),
        capture_output=True,
        check=True,
        timeout=30,
    )
    return done.stdout.decode()


# -- statuses, settings, terminals --------------------------------------------------------------------


def test_the_exit_status_says_the_worst(host: Host) -> None:
    (host.root / "home/ann").chmod(0o1755)
    assert cvmctl("trace", "joe@example.org", "x@elsewhere.example", host=host).returncode == 0
    assert cvmctl("trace", "joe@example.org", "nobody@example.org", host=host).returncode == 1
    assert cvmctl("trace", "nobody@example.org", "ann@example.org", host=host).returncode == 111


def test_qtraceaddrs_variables_are_read_where_ours_are_unset(host: Host) -> None:
    host.file("home/joe/.qmail-bar", uid=5001)
    more = {"QMAIL_ROOT": None, "QMAIL": str(host.root), "QMAILBREAK": "+", "QMAILALIAS": "ann"}
    plus, nobody = traced(host, "joe+bar@example.org", "nobody@example.org", **more)
    assert (plus["verdict"], plus["user"]) == ("accepted", "joe")
    assert (nobody["verdict"], nobody["user"]) == ("accepted", "ann")
    (ours,) = traced(host, "joe+bar@example.org", **more, CVM_QMAIL_BREAK="-", CVM_QMAIL_ALIAS="alias")
    assert (ours["verdict"], ours["user"]) == ("rejected", "alias")


def test_a_wrong_setting_is_named(host: Host) -> None:
    done = cvmctl("trace", "joe@example.org", host=host, QMAILBREAK="ab", CVM_QMAIL_BREAK=None)
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr == "cvmctl: CVM_QMAIL_BREAK: found 'ab', expected one byte\n"


def test_a_wrong_setting_of_a_plug_in_is_named_too(host: Host) -> None:
    done = cvmctl("trace", "joe@example.org", host=host, CVM_VPOPMAIL_BACKEND="dbase")
    assert (done.returncode, done.stdout) == (100, "")
    assert done.stderr.startswith("cvmctl: CVM_VPOPMAIL_BACKEND: found 'dbase', expected one of ")


def test_an_unknown_module_is_wrong_usage(host: Host) -> None:
    done = cvmctl("trace", "--module", "nothing", "joe@example.org", host=host)
    assert done.returncode == 2
    assert "nothing: found no such module, expected one of cvm-directory, cvm-qmail" in done.stderr


def misbehaving(host: Host, line: str, timeout: str = AN_HOUR) -> subprocess.CompletedProcess[str]:
    """The trace of an address whose plug-in does what `line` says, see plugins/misbehaving.py."""
    host.file("home/joe/.qmail-x", line, uid=5001)
    return cvmctl("trace", "joe-x@example.org", host=host, PYTHONPATH=PLUGINS, CVM_LOOKUP_TIMEOUT=timeout)


def test_a_lookup_that_hangs_costs_its_deadline(host: Host) -> None:
    done = misbehaving(host, "|hang\n", "300")
    assert done.returncode == 111
    assert "temporary failure: the lookup took longer than 0.3 seconds" in done.stdout


def test_a_lookup_that_fails_or_dies_is_a_temporary_failure_as_in_the_server(host: Host) -> None:
    done = misbehaving(host, "|raise\n")
    assert done.returncode == 111
    assert "temporary failure: internal-error (RuntimeError at " in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert "temporary failure: the lookup died" in misbehaving(host, "|die\n").stdout


def test_of_what_a_plug_in_reads_only_that_it_is_there_is_shown(host: Host) -> None:
    host.file("secrets", "sesame")
    done = misbehaving(host, f"|taste {host.root}/secrets\n|taste {host.root}/nothing\n")
    assert f"file {host.root}/secrets: found" in done.stdout
    assert f"file {host.root}/nothing: not there" in done.stdout
    assert "sesame" not in done.stdout


def terminal(arguments: list[str], host: Host) -> str:
    """What a terminal of 80 columns gets."""
    parent, child = pty.openpty()
    with subprocess.Popen(
        [CVMCTL, *arguments],
        env=environment(host, {"TERM": "xterm-256color", "COLUMNS": "200", "NO_COLOR": None, "LC_ALL": "C.UTF-8"}),
        stdout=child,
        stderr=child,
    ) as process:
        os.close(child)
        got = b""
        while True:
            try:
                data = os.read(parent, 65536)
            except OSError:  # the last one has closed it
                break
            if not data:
                break
            got += data
        process.wait()
    os.close(parent)
    return got.decode()


def test_a_terminal_gets_a_tree_with_colours(host: Host) -> None:
    got = terminal(["trace", "joe@example.org", "nobody@example.org"], host)
    assert "├── " in got
    assert "└── " in got
    assert "\x1b[1;32maccepted: mailbox" in got
    assert "\x1b[1;31mrejected: no-mailbox" in got


def test_nothing_hostile_reaches_a_terminal(host: Host) -> None:
    host.file("home/joe/.qmail-evil", b"&\x1b]0;owned\x07@x\n|/bin/\x9b2J y\n", uid=5001)
    got = terminal(["trace", "joe-evil@example.org", "[red]\x1b[2J\u202e@example.org"], host)
    assert "\x1b[2J" not in got
    assert "\x1b]0" not in got
    assert "\\x1b]0;owned\\x07" in got
    assert "[red]\\x1b[2J\\xe2\\x80\\xae@example.org" in got, "no markup is read"


def test_the_command_prints_what_was_found(host: Host) -> None:
    done = cvmctl("trace", "joe-foo@example.org", "nobody@example.org", host=host)
    assert done.stdout.replace(str(host.root), "") == shown(host, "joe-foo@example.org", "nobody@example.org")
    assert (done.returncode, done.stderr) == (1, "")


def test_a_pipe_gets_printable_text_and_json_ascii(host: Host) -> None:
    address = "j\xf6\x1b[31m\u202e@example.org"
    got = cvmctl("trace", address, host=host).stdout
    assert r"j\xf6\x1b[31m\xe2\x80\xae@example.org".replace(r"\xf6", "\xf6") in got
    assert got.replace("\n", "").isprintable()
    as_json = cvmctl("trace", "--json", address, host=host).stdout
    assert as_json.isascii()
    assert json.loads(as_json)["address"] == r"j\xc3\xb6\x1b[31m\xe2\x80\xae@example.org"


def test_what_was_made_text_is_made_bytes_again() -> None:
    assert bytes_of("\udcff\xe9") == b"\xff\xc3\xa9"
