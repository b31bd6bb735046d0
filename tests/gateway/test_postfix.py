"""The real Postfix: postmap, and an smtpd with socketmap and policy maps, asking a real gateway and daemon."""

from __future__ import annotations

import os
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from gateways import OUTCOMES, Gateway, Module, free_port, gateway, module
from hosts import Host, temporary_directory
from serving import PATIENCE, serving, until
from smtp_servers import write_old

from cvm_qmail.answer import Recipient

pytestmark = [pytest.mark.root, pytest.mark.peer("postmap", "postfix")]


def by_local_part(recipient: Recipient) -> Any:
    """The first word of a local part is the outcome."""
    word = recipient.account.partition(b"-")[0].decode("latin-1")
    return OUTCOMES[{"yes": "accepted", "no": "rejected", "out": "out_of_scope"}.get(word, "temporary_failure")]


# -- postmap ------------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What postmap did."""

    status: int
    output: str
    errors: str


def postmap(running: Gateway, *keys: str, name: str = "rcpt") -> Answer:
    """`postmap -q` of one key, or of several on its standard input."""
    table = f"socketmap:unix:{running.directory}/socketmap:{name}"
    data = "".join(f"{key}\n" for key in keys) if len(keys) > 1 else None
    with temporary_directory() as directory:
        write_old(directory / "main.cf", "compatibility_level = 3.6\n")
        done = subprocess.run(
            ["postmap", "-c", directory, "-q", keys[0] if data is None else "-", table],
            input=data,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    return Answer(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def asked() -> Iterator[tuple[Module, Gateway]]:
    with temporary_directory() as directory, module(f"cvm-local:{directory}/m") as made:
        made.says = by_local_part
        with gateway(made.address) as running:
            yield made, running


def test_postmap_finds_what_exists_and_nothing_else(asked: tuple[Module, Gateway]) -> None:
    _, running = asked
    assert postmap(running, "yes@ours.test")[:2] == (0, "1\n")
    assert postmap(running, "yes@ours.test", name="any_other_name")[:2] == (0, "1\n")
    assert postmap(running, "no@ours.test") == (1, "", "")
    assert postmap(running, "out@elsewhere.test") == (1, "", "")
    later = postmap(running, "later@ours.test")
    assert (later.status, later.output) == (1, "")
    assert "socketmap server temporary error: cannot tell now (home-sticky)" in later.errors


def test_postmap_asks_many_keys_on_one_connection(asked: tuple[Module, Gateway]) -> None:
    _, running = asked
    keys = [f"{'yes' if n % 2 else 'no'}-{n}@ours.test" for n in range(200)]
    done = postmap(running, *keys)
    assert done.output == "".join(f"{key}\t1\n" for key in keys if key.startswith("yes"))


def test_postmap_of_odd_keys_asks_for_the_mailbox(asked: tuple[Module, Gateway]) -> None:
    made, running = asked
    for key, address in (
        ('"yes- b"@ours.test', b"yes- b@ours.test"),
        ('"yes-\\"q"@ours.test', b'yes-"q@ours.test'),
        ("YES-X@OURS.TEST", b"yes-x@ours.test"),
        ("yes-", b"yes-"),
    ):
        made.asked.clear()
        assert postmap(running, key).output == "1\n"
        assert [recipient.address for recipient in made.asked] == [address]


# -- smtpd --------------------------------------------------------------------------------------------

MAIN = """\
compatibility_level = 3.6
queue_directory = {root}/queue
data_directory = {root}/data
mail_owner = postfix
setgid_group = postdrop
maillog_file = {root}/log
maillog_file_prefixes = /tmp, /var
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mx.ours.test
mydestination =
mynetworks = 192.0.2.0/24
alias_maps =
local_recipient_maps =
proxy_read_maps = proxy:socketmap:unix:{gateway}/socketmap:rcpt
relay_domains = ours.test
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions =
smtpd_peername_lookup = no
"""

MASTER = """\
127.0.0.1:{maps} inet n - n - - smtpd
 -o relay_recipient_maps=socketmap:unix:{gateway}/socketmap:rcpt
127.0.0.1:{proxied} inet n - n - - smtpd
 -o relay_recipient_maps=proxy:socketmap:unix:{gateway}/socketmap:rcpt
127.0.0.1:{policy} inet n - n - - smtpd
 -o smtpd_recipient_restrictions=check_policy_service,unix:{gateway}/policy
 -o smtpd_data_restrictions=check_policy_service,unix:{gateway}/policy
proxymap unix - - n - - proxymap
rewrite unix - - n - - trivial-rewrite
anvil unix - - n - 1 anvil
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
pickup unix n - n 60 1 pickup
tlsmgr unix - - n 1000? 1 tlsmgr
postlog unix-dgram n - n - 1 postlogd
"""


@contextmanager
def postfix(running: Gateway) -> Iterator[dict[str, int]]:
    """A Postfix of its own, in a directory of its own: ports by how it asks."""
    ports = {name: free_port() for name in ("maps", "proxied", "policy")}
    with temporary_directory() as root:
        root.chmod(0o755)
        config = root / "etc"
        for name in ("etc", "queue", "data"):
            (root / name).mkdir()
        subprocess.run(["chown", "postfix", root / "data"], check=True)
        write_old(config / "main.cf", MAIN.format(root=root, gateway=running.directory))
        (config / "master.cf").write_text(MASTER.format(gateway=running.directory, **ports))
        environment = {**os.environ, "MAIL_CONFIG": str(config)}
        with (root / "err").open("wb") as errors:
            subprocess.run(["postfix", "-c", config, "start"], env=environment, stderr=errors, check=False)
        try:
            until(lambda: all(map(listening, ports.values())), f"postfix listens: {(root / 'err').read_text()}")
            yield ports
        finally:
            subprocess.run(["postfix", "-c", config, "stop"], env=environment, stderr=subprocess.DEVNULL, check=False)
            until(lambda: not any(map(listening, ports.values())), "postfix has ended")


def listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def rcpt(port: int, address: str) -> str:
    """The reply to RCPT."""
    with smtplib.SMTP("127.0.0.1", port, timeout=PATIENCE) as client:
        client.ehlo("client.test")
        client.mail("sender@client.test")
        code, text = client.docmd(f"RCPT TO:<{address}>")
    return f"{code} {text.decode()}"


def test_smtpd_does_right_by_every_way_of_asking(asked: tuple[Module, Gateway]) -> None:
    _, running = asked
    with postfix(running) as ports:
        for name in ("maps", "proxied"):
            assert rcpt(ports[name], "yes@ours.test").startswith("250 ")
            assert rcpt(ports[name], '"yes- b"@ours.test').startswith("250 ")
            assert rcpt(ports[name], "no@ours.test").startswith("550 5.1.1 ")
            assert rcpt(ports[name], "later@ours.test").startswith("451 4.3.0 ")
            assert rcpt(ports[name], "yes@elsewhere.test").startswith("554 5.7.1 ")
        port = ports["policy"]
        assert rcpt(port, "yes@ours.test").startswith("250 ")
        assert rcpt(port, "out@ours.test").startswith("250 ")
        assert rcpt(port, "no@ours.test") == ("550 5.1.1 <no@ours.test>: Recipient address rejected: no such mailbox")
        assert rcpt(port, "later@ours.test") == (
            "450 4.3.0 <later@ours.test>: Recipient address rejected: cannot tell now"
        )
        line = "- no@ours.test policy no-mailbox 127.0.0.1 "
        until(lambda: line in Path(running.log).read_text(), "the log says who asked")


def test_smtpd_refuses_the_message_where_recipients_are_not_to_be_found_out(asked: tuple[Module, Gateway]) -> None:
    made, _ = asked
    with gateway(made.address, CVM_GATEWAY_DENY_ALL="1") as running, postfix(running) as ports:
        for recipients, code in ((("yes", "no"), 554), (("yes",), 354), (("no",), 554)):
            with smtplib.SMTP("127.0.0.1", ports["policy"], timeout=PATIENCE) as client:
                client.ehlo("client.test")
                client.mail("sender@client.test")
                for local in recipients:
                    assert client.docmd(f"RCPT TO:<{local}@ours.test>")[0] == 250
                assert client.docmd("DATA")[0] == code
                client.close()  # QUIT would be the first line of a message, and its answer waited for


def test_smtpd_is_to_try_again_while_the_daemon_is_away(host: Host) -> None:
    host.control("locals", "ours.test\n")
    with serving(host) as server, gateway(server.module) as running, postfix(running) as ports:
        assert rcpt(ports["maps"], "joe@ours.test").startswith("250 ")
        assert rcpt(ports["maps"], "nobody@ours.test").startswith("550 5.1.1 ")
        assert rcpt(ports["policy"], "nobody@ours.test").startswith("550 5.1.1 ")
        assert server.stop() == 0
        for address in ("joe@ours.test", "nobody@ours.test"):
            assert rcpt(ports["maps"], address).startswith("451 4.3.0 ")
            assert rcpt(ports["policy"], address).startswith("450 4.3.0 ")
        with serving(host, path=server.path):
            assert rcpt(ports["maps"], "joe@ours.test").startswith("250 ")
        assert running.stop() == 0
        assert rcpt(ports["maps"], "joe@ours.test").startswith("451 4.3.0 ")
