#!/bin/sh
""":"
# cvm-rcptcheck: a program that a mail server runs for each recipient.  Manual: cvm-rcptcheck(8).
#
# It is a shell script and a Python program in one file.  The shell runs the lines up to the first one that begins with
# a quoted colon; to Python they are the docstring.  Python asks, and ends with one of the statuses below.  The shell
# passes the result on to the mail server, in the form that it understands.
#
# Invariants: an acceptance or a rejection comes from an answer, never from an error.  Only Python's own last line ends
# with 99 to 103, so any other end of the interpreter (no memory to start in, a missing library, a signal) is a
# temporary failure, which the shell reports since the interpreter cannot.  Only the shell writes to the server, once,
# and to standard output only for qmail-spp.  An address is never part of a command.
#
#     99 accepted, or out of scope   100 no such mailbox   101 full   102 disabled   103 blocked
#     111 temporary failure          112 temporary failure: full
#
# Source: notqmail pull request 233, sagredo-dev/qmail and agerstla/qmail (qmail-smtpd.c, rcptcheck; qmail-spp.c),
# s/qmail 3.2 (recipients.c): how they interpret an exit status.

signals='HUP INT QUIT ALRM TERM USR1 USR2 PIPE XCPU'

finish() {
    trap '' $signals
    case $1 in
    99) reply= ;;
    100) reply='550 5.1.1 no such mailbox' ;;
    101) reply='552 5.2.2 mailbox full' ;;
    102) reply='550 5.2.1 mailbox disabled' ;;
    103) reply='550 5.7.1 mailbox does not take this mail' ;;
    112) reply='452 4.2.2 mailbox full' ;;
    *) reply='451 4.3.0 cannot tell now' ;;
    esac
    if [ "${RECIPIENT+set}" ]; then
        to_rcptcheck
    elif [ "${SMTPRCPTTO+set}" ]; then
        to_spp
    else
        to_recipients
    fi
}

# qmail-smtpd with RCPTCHECK.  It uses the text on descriptor 4 only with exit status 100.  Without a reader of the
# text, 100 would be a rejection: descriptor 4 must be a pipe.
to_rcptcheck() {
    [ "$reply" ] || next_program
    if [ "$USE_FD4" ] && [ -p /dev/fd/4 ] && printf '%s\r\n' "$reply" 2>/dev/null >&4; then
        exit 100
    fi
    case $reply in
    5*) exit 100 ;;
    *) exit 111 ;;
    esac
}

# Accepted: CVM_RCPTCHECK_NEXT is run, and its exit status passed on.  If it cannot run, that is a temporary failure.
next_program() {
    [ "$CVM_RCPTCHECK_NEXT" ] || exit 0
    trap - $signals
    "$CVM_RCPTCHECK_NEXT"
    status=$?
    [ $status -lt 126 ] && exit $status
    reply='451 4.3.0 cannot tell now'
}

# qmail-spp.  It answers 451 itself to exit status 120.
to_spp() {
    case $reply in
    '') ;;
    5*)
        if [ "$CVM_GATEWAY_DENY_ALL" = 1 ]; then
            printf 'LD554 5.1.1 message refused: a recipient has no mailbox here\n' || exit 120
        else
            printf 'E%s\n' "$reply" || exit 120
        fi
        ;;
    *) printf 'E%s\n' "$reply" || exit 120 ;;
    esac
    exit 0
}

# s/qmail and indimail: every exit status but 0 and 111 is a rejection.
to_recipients() {
    case $reply in
    '') exit 0 ;;
    5*) exit 1 ;;
    *) exit 111 ;;
    esac
}

trap 'finish 111' $signals
for python in "${0%/*}/python3" /usr/bin/python3 /usr/local/bin/python3 python3; do
    [ -x "$python" ] && break
done
"$python" -I -S "$0"
finish $?
":"""

import _socket
import os

ACCEPTED, MISSING, FULL, DISABLED, BLOCKED, TEMPORARY, TEMPORARY_FULL = 99, 100, 101, 102, 103, 111, 112

REJECTIONS = {
    b"over-quota": FULL,
    b"locked": DISABLED,
    b"home-not-made": DISABLED,
    b"home-denied": DISABLED,
    b"dotqmail-denied": DISABLED,
    b"service-forbidden": DISABLED,
    b"virtual-user-expired": DISABLED,
    b"virtual-user-locked": DISABLED,
    b"program-bounces": BLOCKED,
    b"bouncesaying": BLOCKED,
    b"wrong-password": BLOCKED,
    b"rejected-characters": BLOCKED,
}
"""The class of a rejection by its reason word; every other word is a missing mailbox.  As in reasons.py."""

STATUSES = {b"5.1.1": MISSING, b"5.2.2": FULL, b"5.2.1": DISABLED, b"5.7.1": BLOCKED}
"""The class of a rejection by the enhanced status code of a reply."""

PACKET_LIMIT, VALUE_LIMIT, NONCE = 512, 255, 8
FD3_LIMIT = 65536
REPLY_LIMIT = 65536
PAUSE = 0.01
"""Seconds before another attempt, when the kernel cannot wait for it."""

UDP_TRIES = (1.0, 2.0, 4.0)
"""Seconds to wait for an answer after each datagram sent; after the last one, until the deadline."""


class CannotTell(Exception):
    """There is no answer; the argument is the cause."""


class _Deadline:
    """When to give up.  The clock is that of os.times, which needs no import."""

    def __init__(self, seconds: float) -> None:
        self._end = os.times()[4] + seconds

    def left(self, most: float = 3600.0) -> float:
        """Seconds until the deadline, at most `most`.  Raises `CannotTell` when it has passed."""
        left = self._end - os.times()[4]
        if left <= 0:
            raise CannotTell("no answer in time")
        return min(left, most)

    def pause(self) -> None:
        """Waits a moment."""
        idle, other = _socket.socketpair()
        idle.settimeout(self.left(PAUSE))
        try:
            idle.recv(1)
        except TimeoutError:
            pass
        idle.close()
        other.close()


def main(env: "dict[bytes, bytes]") -> int:
    """The status for the shell."""
    try:
        while (fd := os.open("/dev/null", os.O_RDWR)) <= 2:  # else a socket could become standard error
            pass
        os.close(fd)
        return _verdict(env)
    except CannotTell as error:
        _complain(str(error))
    except OSError as error:
        _complain(str(error))
    except BaseException as error:  # noqa: BLE001  an interrupt and the lack of memory too
        _complain(type(error).__name__)
    return TEMPORARY


def _complain(text: str) -> None:
    try:
        os.write(2, f"cvm-rcptcheck: {text}\n".encode("utf-8", "backslashreplace"))
    except BaseException:  # noqa: BLE001, S110  the exit status is enough
        pass


def _verdict(env: "dict[bytes, bytes]") -> int:
    seconds = env.get(b"CVM_GATEWAY_TIMEOUT") or b"10000"
    if not seconds.isdigit() or not 0 < len(seconds) < 8 or not int(seconds):
        raise CannotTell(f"CVM_GATEWAY_TIMEOUT: found {seconds!r}, expected milliseconds from 1 to 9999999")
    deadline = _Deadline(int(seconds) / 1000)
    spp = b"RECIPIENT" not in env and b"SMTPRCPTTO" in env
    if spp and (env.get(b"SMTPRCPTHOSTSOK") == b"0" or (b"RELAYCLIENT" in env and not _checks_relay_clients(env))):
        return ACCEPTED  # not to be judged here: qmail-spp asks about these too
    address = _recipient(env, deadline)
    if env.get(b"CVM_GATEWAY"):
        return _ask_gateway(env[b"CVM_GATEWAY"], address, env, deadline)
    if env.get(b"CVM_LOOKUP"):
        return _ask_module(env[b"CVM_LOOKUP"], address, env.get(b"CVM_LOOKUP_SECRET", b""), deadline)
    raise CannotTell("neither CVM_GATEWAY nor CVM_LOOKUP is set: expected CVM_LOOKUP=cvm-local:PATH or the like")


def _checks_relay_clients(env: "dict[bytes, bytes]") -> bool:
    return env.get(b"CVM_RCPTCHECK_RELAYCLIENT", b"0") not in (b"", b"0")


def _recipient(env: "dict[bytes, bytes]", deadline: _Deadline) -> bytes:
    """The address without quotes or brackets; it may be empty or without a domain."""
    for name in (b"RECIPIENT", b"SMTPRCPTTO"):
        if name in env:
            return env[name]
    given = b""
    try:
        os.set_blocking(3, False)
        while b"\0" not in given and len(given) < FD3_LIMIT:
            try:
                data = os.read(3, FD3_LIMIT)
            except BlockingIOError:
                deadline.pause()
                continue
            if not data:
                break
            given += data
    except OSError as error:
        raise CannotTell(
            f"no mail server is known that calls so: RECIPIENT and SMTPRCPTTO are not set; descriptor 3: {error}"
        ) from None
    address, end, _ = given.partition(b"\0")
    if not end:
        raise CannotTell(f"descriptor 3: found {len(given)} bytes, expected an address that ends with a zero byte")
    return address


# A CVM module -------------------------------------------------------------------------------------------------------


def _ask_module(module: bytes, address: bytes, secret: bytes, deadline: _Deadline) -> int:
    scheme, _, place = module.partition(b":")
    nonce = os.urandom(NONCE) if scheme == b"cvm-udp" else b""
    packet = _request(address, secret, nonce)
    if scheme == b"cvm-local":
        return _judge(_ask_unix(place, packet, deadline), nonce)
    if scheme == b"cvm-udp":
        return _judge(_ask_udp(place, packet, deadline), nonce)
    raise CannotTell(f"CVM_LOOKUP: found {module!r}, expected cvm-local:PATH or cvm-udp:HOST:PORT")


def _request(address: bytes, secret: bytes, nonce: bytes) -> bytes:
    """The packet of a question.  An empty credential 240 asks for the reason; a server without it ignores it."""
    account, at, domain = address.rpartition(b"@")
    values = [(1, account), (2, domain)] if at else [(1, address)]
    if secret:
        values.append((4, secret))
    values.append((240, b""))
    if max(len(value) for _, value in values) > VALUE_LIMIT:
        raise CannotTell(f"an address of {len(address)} bytes is too long to ask for")
    packed = [bytes((kind, len(value))) + value for kind, value in values]
    packet = bytes((2, len(nonce))) + nonce + b"".join(packed) + b"\0"
    if len(packet) > PACKET_LIMIT:
        raise CannotTell(f"an address of {len(address)} bytes is too long to ask for")
    return packet


def _connected(path: bytes, deadline: _Deadline) -> _socket.socket:
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    while True:
        connection.settimeout(deadline.left())
        try:
            connection.connect(path)
            return connection
        except BlockingIOError:  # the server's queue is full
            deadline.pause()
        except OSError as error:
            raise CannotTell(f"{os.fsdecode(path)}: {error.strerror or error}") from None


def _ask_unix(path: bytes, packet: bytes, deadline: _Deadline) -> bytes:
    connection = _connected(path, deadline)
    connection.settimeout(deadline.left())
    connection.sendall(packet)
    connection.shutdown(_socket.SHUT_WR)
    answer = b""
    while len(answer) <= PACKET_LIMIT:
        connection.settimeout(deadline.left())
        data = connection.recv(PACKET_LIMIT + 1)
        if not data:
            break
        answer += data
    return answer


def _ask_udp(place: bytes, packet: bytes, deadline: _Deadline) -> bytes:
    host, _, port = place.decode("ascii", "replace").rpartition(":")
    family, kind, protocol, _, where = _socket.getaddrinfo(host.strip("[]"), port, 0, _socket.SOCK_DGRAM)[0]
    asking = _socket.socket(family, kind, protocol)
    asking.connect(where)
    for seconds in (*UDP_TRIES, 3600.0):
        asking.send(packet)
        wait = _Deadline(deadline.left(seconds))
        try:
            while True:
                asking.settimeout(wait.left())
                answer = asking.recv(PACKET_LIMIT + 1)
                if answer[1 : 2 + NONCE] == packet[1 : 2 + NONCE]:  # else it is forged, or an old one
                    return answer
        except (TimeoutError, CannotTell):
            deadline.left()
    raise CannotTell("no answer in time")


def _judge(answer: bytes, nonce: bytes) -> int:
    """The exit status for a response.  A response that is not complete and well-formed is a temporary failure."""
    end = len(answer)
    if not 3 + len(nonce) <= end <= PACKET_LIMIT or answer[1 : 2 + len(nonce)] != bytes((len(nonce),)) + nonce:
        raise CannotTell("no answer" if not answer else "not the answer of a CVM module")
    at, facts = 2 + len(nonce), {}
    while answer[at]:
        start = at + 2
        if start >= end or start + answer[at + 1] >= end:
            raise CannotTell("an answer that is cut short")
        at = start + answer[start - 1]
        facts[answer[start - 2]] = answer[start:at]
    if at + 1 != end:
        raise CannotTell("bytes after the end of the answer")
    return _outcome(answer[0], facts)


def _outcome(code: int, facts: "dict[int, bytes]") -> int:
    rejection = REJECTIONS.get(facts.get(240, b""), MISSING)
    if code == 0 and facts.keys() >= {1, 2, 3, 5}:
        return ACCEPTED
    if code == 100:
        scope = facts.get(16, b"0")
        if scope == b"0":
            return rejection
        if scope.isdigit() and int(scope):
            return ACCEPTED  # not a domain of the module's: the server's own rules decide
        raise CannotTell(f"out of scope: found {scope!r}, expected 0 or 1")
    if code == 7:
        raise CannotTell("the module requires a different CVM_LOOKUP_SECRET")
    return TEMPORARY_FULL if code not in (0, 2, 3) and rejection == FULL else TEMPORARY


# The gateway's policy listener --------------------------------------------------------------------------------------


def _ask_gateway(gateway: bytes, address: bytes, env: "dict[bytes, bytes]", deadline: _Deadline) -> int:
    scheme, _, path = gateway.partition(b":")
    if scheme != b"unix" or not path:
        raise CannotTell(f"CVM_GATEWAY: found {gateway!r}, expected unix:PATH")
    if b"\n" in address:
        raise CannotTell("an address with a newline in it cannot be asked for")
    connection = _connected(path, deadline)
    connection.settimeout(deadline.left())
    connection.sendall(_policy_request(address, env))
    answer = b""
    while b"\n\n" not in answer:
        connection.settimeout(deadline.left())
        data = connection.recv(REPLY_LIMIT)
        answer += data
        if not data or len(answer) > REPLY_LIMIT:
            raise CannotTell("not the answer of a policy service" if answer else "no answer")
    return _policy_outcome(answer.partition(b"\n\n")[0])


def _policy_request(address: bytes, env: "dict[bytes, bytes]") -> bytes:
    lines = [b"request=smtpd_access_policy", b"protocol_state=RCPT", b"recipient=" + address]
    for attribute, names in (
        (b"sender", (b"SENDER", b"SMTPMAILFROM", b"MAILFROM")),
        (b"client_address", (b"TCPREMOTEIP",)),
        (b"helo_name", (b"HELO", b"SMTPHELOHOST", b"HELOHOST")),
    ):
        given = [env[name] for name in names if name in env and b"\n" not in env[name]]
        lines += [attribute + b"=" + value for value in given[:1]]
    return b"\n".join(lines) + b"\n\n"


def _policy_outcome(block: bytes) -> int:
    lines = [line.partition(b"=") for line in block.split(b"\n")]
    given = {name: value for name, equals, value in reversed(lines) if equals}
    action, outcome = given.get(b"action", b""), given.get(b"outcome")
    words = [word for word in action.lower().replace(b"\t", b" ").split(b" ") if word]
    if b"\0" in block:
        raise CannotTell("a zero byte in the answer of a policy service")
    if words[:1] == [b"dunno"] and outcome in (None, b"accepted", b"out_of_scope"):
        return ACCEPTED
    if not words or outcome not in (None, b"rejected", b"temporary_failure"):
        raise CannotTell(f"found {action!r} as the action of {outcome!r}")
    status = words[1] if len(words) > 1 else b""
    if len(words[0]) == 3 and words[0].isdigit() and words[0][:1] == b"5" and outcome != b"temporary_failure":
        return STATUSES.get(status, MISSING)
    return TEMPORARY_FULL if status == b"4.2.2" and outcome != b"rejected" else TEMPORARY


if __name__ == "__main__":
    os._exit(main(os.environb.copy()))
