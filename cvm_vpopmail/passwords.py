"""What proves an account, and how an unknown account takes as long as a wrong password.

    password     crypt(3) of it, with the stored hash as setting, is the stored hash
    CRAM-MD5     HMAC-MD5 of the challenge under the clear text     smtp, submission
    APOP         MD5 of the challenge and the clear text            pop3

Law: a hash or a clear text is read here and nowhere else, and leaves only as yes or no.  Nothing in this
module shows one: not a repr, a copy, a pickle or an exception, nor a traceback that prints the variables
of each function; so none of these may hold one by itself.  What is wrong and what is right take the same
time as far as the format of the hash allows.

A leading ``{...}`` is no part of the hash.  An account without a hash has no password at all: vchkpw
refuses it before it looks at the clear text.  Strings are C's: they end at a NUL, so a password or a
challenge that holds one is one that nobody could give to vchkpw, and proves nothing.  Different from
vchkpw: an HMAC over no challenge at all proves nothing; what comes as a password is never tried as a
response, nor the other way round.

crypt(3) is the host's own, so every format that the host knows is known here, and what crypt_r refuses
matches nothing.  Its cost is not bounded here: with a hostile ``rounds=999999999`` it takes minutes, and
the supervisor kills the worker at its deadline.  Who calls must have said what he is about to do
(`Tables.enter`), so that not one worker after the other dies of the same hash.

Source: vchkpw.c (login_virtual_user, authcram, authapop), vauth_crypt; crypt(5); RFC 2104, RFC 2195,
RFC 1939 section 7; libcvm 0.97 (how a response is sent).
"""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

from cvm_qmail.answer import Unavailable
from cvm_qmail.lookups import Challenge, Password, Proof
from cvm_qmail.wire import Code
from cvm_vpopmail.accounts import Secret

if TYPE_CHECKING:
    from hashlib import _Hash as Digest
    from hmac import HMAC

DOMAINS = 1024
"""Domains whose kind of hash is remembered."""

_CRYPT_DATA = 1 << 18
"""Bytes for struct crypt_data: libxcrypt's has 32,768, the GNU C library's had 131,232."""

_UNKNOWN = b"$6$nobody..$"
"""The kind that vpopmail makes by default: its salts have 8 characters."""

_KIND_LIMIT = 200

_KIND = re.compile(
    rb"""\A(?:
      (\$2[a-z]?\$[0-9]{2}\$[./0-9A-Za-z]{22})[./0-9A-Za-z]{31}   # bcrypt: nothing parts salt and digest
    | (\$[^\n]+\$)[./0-9A-Za-z]{11,}                                # all others of today
    | (_[./0-9A-Za-z]{8})[./0-9A-Za-z]{11}                          # BSDI's DES
    | ([./0-9A-Za-z]{2})[./0-9A-Za-z]{11}                           # DES
    )\Z""",
    re.VERBOSE,
)
"""A hash: its kind (algorithm, cost, salt), and its digest."""

_MEMORY_HARD = re.compile(
    rb"\A\$(?:g?y\$[./0-9A-Za-z]{3,}\$[./0-9A-Za-z]*\$|7\$[./0-9A-Za-z]{11,}\$)[./0-9A-Za-z]{43}\Z"
)
"""Hashes that are made in a lot of memory."""

_CHEAPEST = {b"$y$": b"$y$j75$noaccoun$", b"$gy": b"$gy$j75$noaccoun$", b"$7$": b"$7$46..../....noaccount$"}
"""Settings of such kinds that want next to no memory, by their first bytes."""

_BRACES = re.compile(rb"\A\{[^}]*\}")


class Stored:
    """What is stored to prove one account by: an `accounts.Secret`."""

    __slots__ = ("_clear", "_hash")

    def __init__(self, hashed: bytes, clear: bytes) -> None:
        self._hash = hashed
        self._clear = clear

    def __repr__(self) -> str:
        return "Stored(...)"

    def __reduce_ex__(self, *_: object) -> NoReturn:
        raise TypeError("what is stored to prove an account is not copied")

    __getstate__ = __reduce__ = __reduce_ex__

    def proves(self, proof: Proof, service: str) -> bool:
        """Whether this proof is the right one on this service.  Raises `Unavailable`."""
        return self.tried(proof, service) is True

    def tried(self, proof: Proof, service: str) -> bool | None:
        """Whether this proof is the right one; None: there was nothing to try it on.  Raises `Unavailable`."""
        if isinstance(proof, Password):
            return self._tried_password(proof)
        return self._tried_response(proof, service)

    def _tried_password(self, proof: Password) -> bool | None:
        if not proof.password or b"\0" in proof.password or not self._setting():
            return None
        from hmac import compare_digest

        crypt_r = _crypt_r()
        data = ctypes.create_string_buffer(_CRYPT_DATA)
        ctypes.set_errno(0)
        at = crypt_r(proof.password, self._setting(), data)
        if not at or ctypes.string_at(at, 1) == b"*":
            if ctypes.get_errno() == errno.ENOMEM or self._wants_memory():
                raise Unavailable("crypt", "crypt_r has no memory for this hash")
            return None
        return compare_digest(ctypes.string_at(at), self._setting())

    def _tried_response(self, proof: Challenge, service: str) -> bool | None:
        algorithm = _ALGORITHMS.get((proof.type, service))
        if algorithm is None or not proof.challenge or b"\0" in proof.challenge:
            return None
        if not self._hash.partition(b"\0")[0] or not self._clear_text():
            return None
        return _is_digest(algorithm(self, proof), proof)

    def _cram_md5(self, proof: Challenge) -> HMAC:
        import hmac

        _md5()  # if the host has none, this fails, and not hmac with the key in hand
        digest = hmac.new(self._clear_text(), digestmod=_md5)
        digest.update(proof.challenge)
        return digest

    def _apop(self, proof: Challenge) -> Digest:
        digest = _md5()
        digest.update(proof.challenge)
        digest.update(self._clear_text())
        return digest

    def _wants_memory(self) -> bool:
        """Whether a hash that crypt refused is one that it makes if it gets memory; libxcrypt calls both EINVAL."""
        if not _MEMORY_HARD.match(self._setting()):
            return False
        return Stored(_CHEAPEST[self._setting()[:3]], b"").tried(Password(b"x"), "") is not None

    def _setting(self) -> bytes:
        """The hash as crypt(3) gets it: without one leading ``{...}``."""
        return _BRACES.sub(b"", self._hash.partition(b"\0")[0])

    def _clear_text(self) -> bytes:
        return self._clear.partition(b"\0")[0]

    def _kind(self) -> bytes:
        """The hash without its digest; empty if it is no hash that is known."""
        kinds = _KIND.findall(self._setting())
        return b"".join(kinds[0]) if kinds else b""


_ALGORITHMS: dict[tuple[bytes, str], Callable[[Stored, Challenge], HMAC | Digest]] = {
    (b"CRAM-MD5", "smtp"): Stored._cram_md5,  # noqa: SLF001  its own
    (b"CRAM-MD5", "submission"): Stored._cram_md5,  # noqa: SLF001  its own
    (b"APOP", "pop3"): Stored._apop,  # noqa: SLF001  its own
}


def _md5(data: bytes = b"") -> Digest:
    import hashlib  # with hmac 4 ms, which a look-up in command mode does not need

    return hashlib.md5(
        data, usedforsecurity=False
    )  # else refused on hosts that forbid MD5; the protocols have no other


def _is_digest(digest: HMAC | Digest, proof: Challenge) -> bool:
    """Whether the response is this digest: as 32 digits, as 16 bytes, or as libcvm 0.97 sends it.

    That begins to decode one digit too early, with an ``f``, and so never sees the last digit.
    """
    from hmac import compare_digest

    return (
        compare_digest(digest.hexdigest().encode(), proof.response)
        | compare_digest(digest.digest(), proof.response)
        | compare_digest(bytes.fromhex("f" + digest.hexdigest()[:31]), proof.response)
    )


@cache
def _crypt_r() -> Callable[..., Any]:
    for name in ("libcrypt.so.2", "libcrypt.so.1", None):
        try:
            crypt_r = ctypes.CDLL(name, use_errno=True).crypt_r
        except (OSError, AttributeError):
            continue
        crypt_r.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p]
        crypt_r.restype = ctypes.c_void_p
        return crypt_r
    detail = "there is no crypt_r in libcrypt.so.2, libcrypt.so.1 or the C library"
    raise Unavailable("crypt", detail, code=Code.CONFIG)


class Wasted:
    """Tries proofs on one service so that an unknown account takes as long as a wrong password.

    An unknown account's proof is tried on the kind of hash (algorithm, cost, salt; never a digest) of the
    last account of its domain whose hash was made to the end; so one that costs absurdly much, or that
    crypt refuses, is never a kind.
    """

    __slots__ = ("_kinds", "_limit", "_service")

    def __init__(self, service: str, limit: int = DOMAINS) -> None:
        self._service = service
        self._limit = limit
        self._kinds: dict[bytes, bytes] = {}
        """By domain; the one seen last comes last."""

    def proves(self, domain: bytes, secret: Secret, proof: Proof) -> bool:
        """Whether this proof is the right one for an account of `domain`.  Raises `Unavailable`."""
        if not isinstance(secret, Stored):
            return secret.proves(proof, self._service)
        right = secret.tried(proof, self._service)
        if right is None:
            self.on(domain, proof)
            return False
        if isinstance(proof, Password):
            self._remember(domain, secret._kind())  # noqa: SLF001  its own
        return right

    def on(self, domain: bytes, proof: Proof) -> None:
        """Takes as long as a wrong proof takes in `domain`.  Raises `Unavailable`."""
        kind = self._kinds.get(domain, _UNKNOWN)
        if Stored(kind, b"no account").tried(proof, self._service) is None:
            Stored(_UNKNOWN, b"no account").tried(proof, self._service)

    def _remember(self, domain: bytes, kind: bytes) -> None:
        if kind and len(kind) <= _KIND_LIMIT:
            self._kinds.pop(domain, None)
            self._kinds[domain] = kind
            if len(self._kinds) > self._limit:
                del self._kinds[next(iter(self._kinds))]
