"""The C cvm-qmail beside ours, on the same host.

Well-formed requests: identical bytes; of the corpus on some hosts, with CORPUS=whole on all.  Its
faults (the table in the protocol page): not ours; where it does no harm, the test shows that the C program has
them, so that the table stays true.
"""

from __future__ import annotations

import ctypes.util
import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from end_to_end.programs import beside
from hosts import Host, as_bytes, assign_records, cdb_bytes, load, materialise, systems, temporary_directory
from serving import CVM_QMAIL, PATIENCE, Server, accepting, environment, serving, some, until
from test_corpus import case_domain, expected_facts, verdict

from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Fact

pytestmark = [
    pytest.mark.root,
    pytest.mark.peer("cvm-testclient"),
    pytest.mark.skipif(not ctypes.util.find_library("nss_wrapper"), reason="PEER MISSING: libnss-wrapper"),
]

C_PROGRAM = beside("cvm-testclient", "cvm-qmail")

MALFORMED = b"\2\0\0"


def wrapped(host: Host) -> dict[str, str]:
    """What lets the C program see the host's accounts."""
    group = host.root / "group"
    if not group.exists():
        group.write_text("nofiles:x:5099:\nqmail:x:5098:\n")
    return {"LD_PRELOAD": "libnss_wrapper.so", "NSS_WRAPPER_GROUP": str(group)}


@contextmanager
def c_serving(host: Host, *, wait: bool = True, **more: Any) -> Iterator[Server]:
    """The C program serving `host`."""
    with serving(host, program=C_PROGRAM, wait=False, **wrapped(host), **more) as server:
        if more.get("scheme") == "cvm-udp":
            until(server.log.read_text, "the C server starts")
            until(lambda: _answers(server), "the C server answers")
        elif wait:
            until(lambda: accepting(server.path), "the C server answers")
        yield server


def _answers(server: Server) -> bool:
    try:
        return bool(client.transfer(server.module, MALFORMED))
    except client.NoAnswer:
        return False


class Pair(NamedTuple):
    ours: Server
    c: Server

    def send(self, packet: bytes) -> tuple[bytes, bytes]:
        """The same bytes to both; what each answers."""
        return self.ours.send(packet), self.c.send(packet)


@contextmanager
def both(host: Host, **more: Any) -> Iterator[Pair]:
    with ExitStack() as stack:
        yield Pair(stack.enter_context(serving(host, **more)), stack.enter_context(c_serving(host, **more)))


def credential(kind: int, value: bytes) -> bytes:
    return bytes([kind, len(value)]) + value


ACCOUNT, DOMAIN, PASSWORD, SECRET, CHALLENGE = 1, 2, 3, 4, 5


def v2(*credentials: bytes, nonce: bytes = b"") -> bytes:
    return bytes([2, len(nonce)]) + nonce + b"".join(credentials) + b"\0"


def v1(account: bytes, domain: bytes, *lone: bytes) -> bytes:
    return b"\1" + b"".join(text + b"\0" for text in (account, domain, *lone)) + b"\0"


def asked(account: bytes = b"joe", domain: bytes = b"example.org") -> tuple[bytes, bytes]:
    return credential(ACCOUNT, account), credential(DOMAIN, domain)


ADDRESSES = [
    (b"joe", b"example.org"),
    (b"JOE-Foo", b"EXAMPLE.org"),
    (b"joe-nope", b"example.org"),
    (b"joe-list-x", b"example.org"),
    (b"joe-foo", b"elsewhere.example"),
    (b"foo", b"v.example"),
    (b"nobody", b"v.example"),
    (b"postmaster", b"example.org"),
    (b"a@b", b"example.org"),
    (b"\xe9\n\xff", b"example.org"),
    (b"x" * 200, b"v.example"),  # longer than a file name may be, the C program answers 4
]

WELL_FORMED = [
    *(v2(*asked(*address)) for address in ADDRESSES),
    *(v2(*reversed(asked(*address))) for address in ADDRESSES),
    *(v1(*address) for address in ADDRESSES),
    *(v1(*address, b"open sesame") for address in ADDRESSES),
    *(v1(*address, b"close") for address in ADDRESSES),
    *(v2(*asked(*address), nonce=b"12345678") for address in ADDRESSES),
    *(v2(*asked(), nonce=bytes(range(size))) for size in (1, 7, 100, 200)),
    *(v2(*asked(b"nobody"), nonce=bytes(range(size))) for size in (1, 7, 100, 255)),
    # the secret: right, wrong, shorter, longer, empty, twice
    v2(*asked(), credential(SECRET, b"open sesame")),
    v2(credential(SECRET, b"open sesame"), *asked(b"nobody"), nonce=b"n"),
    v2(*asked(), credential(SECRET, b"close")),
    v2(*asked(), credential(SECRET, b"open")),
    v2(*asked(), credential(SECRET, b"open sesame!")),
    v2(*asked(), credential(SECRET, b"")),
    v2(*asked(), credential(SECRET, b"close"), credential(SECRET, b"open sesame")),
    v2(*asked(), credential(SECRET, b"open sesame"), credential(SECRET, b"close")),
    v2(*asked(), credential(PASSWORD, b"open sesame")),
    v2(*asked(b"nobody"), credential(PASSWORD, b"pw"), credential(SECRET, b"open sesame")),
    # a credential given twice: the last one counts
    v2(credential(ACCOUNT, b"nobody"), *asked()),
    v2(*asked(), credential(ACCOUNT, b"nobody")),
    v2(credential(DOMAIN, b"elsewhere.example"), *asked()),
    v2(*asked(), credential(DOMAIN, b"elsewhere.example")),
    # nobody knows these
    v2(credential(77, b"x"), *asked(), credential(255, b"y" * 200)),
    v2(*asked(), credential(6, b"")),
    # no domain, no account, nothing
    v2(credential(ACCOUNT, b"joe")),
    v2(credential(ACCOUNT, b"nobody"), nonce=b"abc"),
    v2(credential(DOMAIN, b"example.org")),
    v2(credential(ACCOUNT, b""), credential(DOMAIN, b"example.org")),
    v2(),
    v2(nonce=b"12345678"),
    v1(b"joe", b""),
    v1(b"", b"example.org"),
    v1(b"", b""),
    # as large as can be: 512 bytes
    v2(*asked(), credential(99, b"z" * 255), credential(98, b"z" * (512 - 3 - 18 - 257 - 2))),
    # other versions
    b"\0",
    b"\3",
    b"\3\0\0",
    b"\3\4abcd\1\3joe\0",
    b"\xff\0",
]

SECRETS = [None, "", "open sesame"]


# -- well-formed requests -------------------------------------------------------------------------


@pytest.mark.parametrize("secret", SECRETS, ids=["secret unset", "secret empty", "secret set"])
@pytest.mark.parametrize("scheme", ["cvm-local", "cvm-udp"])
@pytest.mark.parametrize("envnoathost", ["example.org\n", None], ids=["envnoathost", "me"])
def test_the_responses_are_the_same_bytes(host: Host, scheme: str, secret: str | None, envnoathost: str | None) -> None:
    if envnoathost:
        host.control("envnoathost", envnoathost)
    with both(host, scheme=scheme, CVM_LOOKUP_SECRET=secret) as pair:
        different = [(packet, *pair.send(packet)) for packet in WELL_FORMED]
        different = [(packet, ours, c) for packet, ours, c in different if ours != c]
    assert not different


def command(program: Path, packet: bytes, variables: Mapping[str, str]) -> tuple[int, bytes]:
    done = subprocess.run([program], input=packet, capture_output=True, timeout=PATIENCE, env=variables, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("secret", SECRETS, ids=["secret unset", "secret empty", "secret set"])
def test_the_command_answers_and_ends_alike(host: Host, secret: str | None) -> None:
    variables = environment(host, {"CVM_LOOKUP_SECRET": secret})
    c_variables = environment(host, {"CVM_LOOKUP_SECRET": secret, **wrapped(host)})
    for packet in WELL_FORMED[::2]:
        ours, c = command(CVM_QMAIL, packet, variables), command(C_PROGRAM, packet, c_variables)
        assert ours == c, packet


SETTINGS: list[dict[str, str]] = [
    {"CVM_QMAIL_ASSUME_LOCAL": ""},
    {"CVM_QMAIL_MISSINGDOMAIN": ""},
    {"CVM_QMAIL_MISSINGDOMAIN": "v.example", "CVM_QMAIL_MISSINGUSER": "foo"},
    {"CVM_QMAIL_MISSINGDOMAIN": "example.org", "CVM_QMAIL_ASSUME_LOCAL": "yes"},
    {"CVM_QMAIL_LOOKASIDE": "vdelivermail  bouncesaying"},
    {"CVM_QMAIL_CHECK_PERMS": "yes"},
]


@pytest.mark.parametrize("settings", SETTINGS, ids=" ".join)
def test_each_setting_of_the_c_program_means_the_same(host: Host, settings: dict[str, str]) -> None:
    host.file("home/joe/.qmail-aside", "|  vdelivermail '' bounce\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-second", "# no\n&x@example.org\n|bouncesaying no\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-other", "|vdelivermail2\n", uid=5001, gid=5001)
    accounts = [b"nobody", b"joe-other", b"joe-list-x", b"postmaster", b"joe-aside", b"joe-second"]
    if "CVM_QMAIL_LOOKASIDE" not in settings:
        accounts.append(b"joe")
    with both(host, CVM_QMAIL_PROGRAMS="vpopmail", **settings) as pair:
        for account, domain in product(accounts, [b"example.org", b"v.example", b"elsewhere.example", b"Odd.Example"]):
            ours, c = pair.send(v2(*asked(account, domain)))
            assert ours == c, (account, domain)


# -- the corpus -----------------------------------------------------------------------------------

C_DOES_NOT_START = {"control-envnoathost-is-directory", "control-locals-symlink-loop", "control-me-is-directory"}
"""Unreadable control files stop it; the C program's recorded answers there are none."""

WILDCARD = "a wildcard's domain"


def c_is_right(host: Host, case: Mapping[str, Any]) -> bool | str:
    """Whether the C program's recorded answer is qmail's; WILDCARD: all but the domain fact of a wildcard match."""
    code, scope = case["c"]["code"], case["c"].get("scope") or 0
    if case["expect"] != "deliver":
        return {"no-mailbox": (100, 0), "remote": (100, 1)}.get(case["expect"]) == (code, int(scope)) or (
            case["expect"] == "defer" and code not in (None, 0, 100)
        )
    if code != 0:
        return False
    recorded = {int(number): placed(host, value) for number, value in case["c"]["facts"].items()}
    expected = expected_facts(host, case)
    if recorded == expected:
        return True
    domain = expected[Fact.DOMAIN]
    matched = recorded[Fact.DOMAIN]
    if matched.startswith(b".") and domain.endswith(matched) and recorded | {Fact.DOMAIN: domain} == expected:
        return WILDCARD
    return False


def placed(host: Host, text: str) -> bytes:
    return as_bytes(text.replace("{root}", str(host.root)))


def with_domain(response: bytes, domain: bytes) -> bytes:
    """The same response with another domain fact."""
    code, _, facts = packets.parse_response(response, 2)
    return packets.pack_response(2, b"", code, [(n, domain if n == Fact.DOMAIN else value) for n, value in facts])


STARTED = [path for path in systems("qmail") if path.stem not in C_DOES_NOT_START]


@pytest.mark.parametrize("name", sorted(C_DOES_NOT_START))
def test_it_does_not_start_where_a_control_file_cannot_be_read(name: str) -> None:
    (path,) = [path for path in systems("qmail") if path.stem == name]
    with temporary_directory() as root, c_serving(materialise(load(path), root), wait=False) as c:
        assert c.process.wait(PATIENCE) == 4


@pytest.mark.parametrize("path", some(STARTED, 3, first=1), ids=lambda path: path.stem)
def test_where_the_c_program_agrees_with_qmail_our_bytes_are_its_own(path: Path) -> None:
    system = load(path)
    with temporary_directory() as root:
        host = materialise(system, root)
        with both(host, CVM_QMAIL_PROGRAMS="vpopmail") as pair:  # it believes the other programs
            for case in system["cases"]:
                right = c_is_right(host, case)
                if not right:
                    continue
                domain = case_domain(case)
                given = {ACCOUNT: as_bytes(case["local"])} | ({} if domain is None else {DOMAIN: domain})
                ours, c = pair.send(packets.pack_request(packets.Request(2, b"", given)))
                if right is WILDCARD:
                    c = with_domain(c, expected_facts(host, case)[Fact.DOMAIN])
                assert ours == c, (case["local"], case["domain"])


def test_that_is_most_of_the_corpus() -> None:
    with temporary_directory() as root:
        cases = [case for path in systems("qmail") for case in load(path)["cases"]]
        for name in ("me", "envnoathost"):  # only their presence matters here
            (root / "control").mkdir(exist_ok=True)
            (root / "control" / name).write_text("x\n")
        right = [bool(c_is_right(Host(root), case)) for case in cases if case["domain"] is not None]
    assert sum(right) > len(right) * 0.6


# -- faults of the C server that we do not copy ---------------------------------------------------


@contextmanager
def connection(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as connected:
        connected.settimeout(PATIENCE)
        connected.connect(str(path))
        yield connected


def still_right(server: Server) -> bool:
    return verdict(server.ask("joe")) == "deliver"


def dies_of(server: Server) -> int:
    """The signal that ended a server."""
    return -server.process.wait(PATIENCE)


def test_a_client_that_connects_and_closes_gets_nothing_and_does_no_harm(host: Host) -> None:
    with both(host) as pair:
        assert pair.ours.send(b"") == b""
        assert still_right(pair.ours)
        with connection(pair.c.path):
            pass
        assert dies_of(pair.c) == signal.SIGSEGV


def test_the_single_byte_02_is_malformed(host: Host) -> None:
    with both(host) as pair:
        assert pair.ours.send(b"\2") == MALFORMED
        assert still_right(pair.ours)
        with pytest.raises(client.NoAnswer):
            wire_send(pair.c, b"\2")
        assert dies_of(pair.c) == signal.SIGSEGV


def wire_send(server: Server, packet: bytes) -> bytes:
    """Raises NoAnswer also where nothing came back."""
    if not (answer := server.send(packet)):
        raise client.NoAnswer(server.module)
    return answer


def test_a_nonce_longer_than_the_packet_shows_nothing_of_earlier_clients(host: Host) -> None:
    earlier = v2(*asked(b"confidential-name"), nonce=b"12345678")
    with both(host, CVM_WORKERS="1") as pair:
        pair.send(earlier)
        ours, c = pair.send(b"\2\x40ab")
    assert ours == MALFORMED
    assert b"confidential" in c


def test_bytes_after_the_final_nul_are_malformed(host: Host) -> None:
    packet = v2(*asked(), nonce=b"n")
    with both(host) as pair:
        assert pair.send(packet + b"x") == (b"\2\1n\0", pair.c.send(packet))
        assert pair.send(packet + packet) == (b"\2\1n\0", pair.c.send(packet))
        ours, c = pair.send(v1(b"joe", b"example.org") + b"x")
        assert ours == b"\2\0"
        assert c[0] == 0


@pytest.mark.parametrize("rest", [b"\1", b"\1\x09joe", b"\1\3joe\2\xffexample.org", b"\1\3joe\2\x0cexample.org"])
def test_a_credential_running_past_the_end_is_malformed(host: Host, server: Server, rest: bytes) -> None:
    assert server.send(b"\2\1n" + rest) == b"\2\1n\0"
    assert still_right(server)


def test_a_credential_of_type_0_ends_the_packet(host: Host) -> None:
    packet = b"\2\0" + credential(ACCOUNT, b"joe") + credential(0, b"x") + credential(DOMAIN, b"example.org") + b"\0"
    with both(host) as pair:
        ours, c = pair.send(packet)
    assert ours == MALFORMED
    assert c[0] == 0


@pytest.mark.parametrize("account", [b"joe\0x", b"joe-foo\0-b", b"\0", b"joe\0"])
def test_no_mailbox_has_a_nul_in_its_name(host: Host, account: bytes) -> None:
    with both(host) as pair:
        ours, c = pair.send(v2(*asked(account)))
        assert ours == b"\x64\0\x10\x010\0"
        if account.startswith(b"joe"):
            assert c[0] == 0, "the C program cuts the name at the NUL"
        assert pair.ours.send(v2(*asked(b"joe", b"example.org\0x"))) == b"\x64\0\x10\x010\0"


def test_no_request_can_forge_a_line_of_the_log(host: Host) -> None:
    account = b"x\n+ ann@example.org"
    with both(host) as pair:
        pair.send(v2(*asked(account, b"example\r\n+ joe@forged")))
        pair.send(v2(*asked(account)))
        assert pair.ours.logged("forged")
        assert pair.ours.logged("@example.org ")
        assert pair.c.logged("+ ann@")
        for server in pair:
            server.stop()
        ours, c = (server.log.read_bytes() for server in pair)
    assert [line[:1] for line in ours.splitlines()] == [b"S", b"-", b"-", b"S"]
    assert b"\n+ ann@example.org" not in ours
    assert b"\r" not in ours
    assert b"\n+ ann@example.org" in c


@pytest.mark.parametrize("size", [513, 600, 100_000])
def test_more_than_512_bytes_are_read_and_called_malformed(host: Host, size: int) -> None:
    packet = v2(*asked()).ljust(size, b"x")
    with both(host) as pair:
        assert pair.ours.send(packet) == MALFORMED
        assert still_right(pair.ours)
        with pytest.raises(client.NoAnswer):
            wire_send(pair.c, packet)


def test_facts_that_do_not_fit_are_left_out_one_by_one(host: Host) -> None:
    deep = "d" * (169 - len(str(host.root)) - 1)
    home = host.directory(deep, uid=5004, gid=5004)
    assert len(str(home)) == 169
    host.passwd(f"deep:x:5004:5004::{home}:/bin/sh")
    with both(host) as pair:
        ours, c = pair.send(v2(*asked(b"deep")))
    code, _, facts = packets.parse_response(ours, 2)
    path = str(home).encode()
    assert (code, dict(facts)) == (
        0,
        {
            Fact.USERNAME: b"deep",
            Fact.USERID: b"5004",
            Fact.GROUPID: b"5004",
            Fact.DIRECTORY: path,
            Fact.SYS_USERNAME: b"deep",
            Fact.SYS_DIRECTORY: path,
            Fact.DOMAIN: b"example.org",
        },
    )
    assert len(ours) <= 512
    assert (c[0], len(c)) == (3, 513)


def test_a_damaged_users_cdb_is_a_temporary_failure_where_the_damage_is(host: Host) -> None:
    host.users("=joe:joe:5001:5001:{root}/home/joe:::", "+joe-:joe:5001:5001:{root}/home/joe:-::")
    whole = (host.root / "users/cdb").read_bytes()
    without_breaks = cdb_bytes(assign_records([f"=joe:joe:5001:5001:{host.root}/home/joe:::"])[:-1])
    with both(host) as pair:
        ours, c = pair.send(v2(*asked()))
        assert ours == c
        assert ours[0] == 0
        host.file("users/cdb", whole[:2060])
        assert pair.ours.send(v2(*asked())) == b"\4\0\0"
        host.file("users/cdb", without_breaks)
        assert pair.ours.send(v2(*asked())) == b"\4\0\0"
        assert pair.c.send(v2(*asked())) == c, "the C program does not read the list of break characters"


def test_a_directory_named_users_cdb_is_a_temporary_failure(host: Host) -> None:
    host.directory("users/cdb")
    with both(host) as pair:
        assert pair.ours.send(v2(*asked())) == b"\4\0\0"
        assert pair.ours.send(v2(*asked(b"joe", b"elsewhere.example"))) == b"\x64\0\x10\x011\0", "not asked"
        with pytest.raises(client.NoAnswer):
            wire_send(pair.c, v2(*asked()))
        assert dies_of(pair.c) == signal.SIGSEGV


def test_a_second_server_does_not_steal_the_path_of_a_live_one(host: Host, server: Server) -> None:
    with serving(host, path=server.path, wait=False) as second:
        assert second.process.wait(PATIENCE) == 111
        assert f"{server.path} is already served by process {server.process.pid}" in second.errors.read_text()
    assert server.process.poll() is None
    assert still_right(server)


def test_nor_that_of_the_c_program_which_does_steal(host: Host) -> None:
    with c_serving(host) as c:
        with serving(host, path=c.path, wait=False) as second:
            assert second.process.wait(PATIENCE) == 111
        assert still_right(c)
        with c_serving(host, wait=False, path=c.path) as thief:
            until(lambda: "Starting." in thief.log.read_text(), "the second C server starts")
            assert thief.process.poll() is None
            assert c.stop() == 0
            assert not c.path.exists(), "the first one's exit removes the second one's socket"


def open_still(silent: socket.socket) -> bool:
    """Whether the server has not yet closed this connection."""
    return not select.select([silent], [], [], 0)[0]


def test_a_silent_client_costs_the_others_nothing(host: Host) -> None:
    with both(host, CVM_LOCAL_TIMEOUT="2000") as pair:
        for server in pair:
            with connection(server.path) as silent:
                assert still_right(server)
                assert open_still(silent) == (server is pair.ours), "the C program answers when it has given up on it"
                assert silent.recv(1) == b"", "closed at the time-out"


def test_a_fifo_named_as_a_qmail_file_never_blocks(host: Host) -> None:
    fifo = host.root / "home/joe/.qmail-pipe"
    os.mkfifo(fifo)
    os.chown(fifo, 5001, 5001)
    host.file("home/joe/.qmail-default", uid=5001, gid=5001)
    with both(host, CVM_QMAIL_LOOKASIDE="vdelivermail") as pair:
        assert verdict(pair.ours.ask("joe-pipe")) == "deliver"
        (host.root / "home/joe/.qmail-default").unlink()
        assert verdict(pair.ours.ask("joe-pipe")) == "no-mailbox"
        with connection(pair.c.path) as asking:
            asking.sendall(v2(*asked(b"joe-pipe")))
            asking.shutdown(socket.SHUT_WR)
            until(lambda: reader_waits(fifo), "the C program hangs in open(2)")


def reader_waits(fifo: Path) -> bool:
    """Whether somebody has opened the FIFO for reading, or hangs in doing so; lets them go on."""
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


def test_a_user_without_an_extension_exists_also_with_a_lookaside(host: Host) -> None:
    with both(host, CVM_QMAIL_LOOKASIDE="vdelivermail") as pair:
        ours, c = pair.send(v2(*asked()))
        assert ours[0] == 0
        assert c == b"\4\0\0"
        host.file("home/joe/.qmail", "|vdelivermail '' bounce\n", uid=5001, gid=5001)
        assert pair.ours.send(v2(*asked())) == b"\x64\0\x10\x011\0"


def test_a_lookaside_found_for_one_address_says_nothing_of_the_next(host: Host) -> None:
    host.file("home/joe/.qmail-aside", "|vdelivermail '' bounce\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-list", "|condredirect x true\n", uid=5001, gid=5001)
    with both(host, CVM_QMAIL_LOOKASIDE="vdelivermail", CVM_WORKERS="1") as pair:
        first, c_first = pair.send(v2(*asked(b"joe-list")))
        assert first == c_first
        assert first[0] == 0
        ours, c = pair.send(v2(*asked(b"joe-aside")))
        assert ours == c == b"\x64\0\x10\x011\0"
        assert pair.send(v2(*asked(b"joe-list"))) == (first, c), (
            "the C program takes what it found for a match ever after"
        )


def test_failures_without_a_nonce_have_two_zeros_behind_the_code(host: Host) -> None:
    with both(host, CVM_LOOKUP_SECRET="s") as pair:
        assert pair.send(v2(*asked())) == (b"\7\0\0", b"\7\0\0")
        assert pair.send(b"\2\0") == (MALFORMED, MALFORMED)
