"""Checks the proof of a login, and makes an unknown account take as long as a wrong password.

    password     crypt(3) of it, with the stored hash as setting, is the stored hash
    CRAM-MD5     HMAC-MD5 of the challenge under the clear text     smtp, submission
    APOP         MD5 of the challenge and the clear text            pop3

Invariants: a hash or a clear text is read only in this module, which returns nothing but yes or no.  Nothing in this
module shows one: not a repr, a copy, a pickle or an exception, nor a traceback that prints the variables
of each function; so none of these may hold one by itself.  A wrong and a right proof take the same time, as far as
the format of the hash allows.

A leading ``{...}`` is not part of the hash.  An account without a hash has no password at all: vchkpw rejects it
before it reads the clear text.  Strings end at a NUL, as in C, so a password or challenge with a NUL could not be
given to vchkpw, and proves nothing.  Different from
vchkpw: an HMAC over an empty challenge proves nothing; a password is never tried as a response, nor a response as a
password.

crypt(3) is the host's own, so every format of the host works; a hash that crypt_r refuses matches no password.  Its
time is not bounded here: with a hostile ``rounds=999999999`` it takes minutes, and
the supervisor kills the worker at its deadline.  The caller marks the login first (`Tables.mark`), so that
the same hash does not kill one worker after the other.

Source: vchkpw.c (login_virtual_user, authcram, authapop), vauth_crypt; crypt(5); RFC 2104, RFC 2195,
RFC 1939 section 7; libcvm 0.97 (how a response is sent).
"""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from cvm_qmail.answer import Kind, Unavailable
from cvm_qmail.plugin import Challenge, Password, Proof

if TYPE_CHECKING:
    from hashlib import _Hash as Digest
    from hmac import HMAC


class Secret(Protocol):
    """The stored hash and clear text of an account.  Its repr shows nothing."""

    def verify(self, proof: Proof, service: str, /) -> bool:
        """Whether the proof is right for this service.  Raises `Unavailable`."""
        ...


DOMAINS = 1024
"""The number of domains whose kind of hash is remembered."""

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
"""Kinds of hashes that need much memory."""

_CHEAPEST = {b"$y$": b"$y$j75$noaccoun$", b"$gy": b"$gy$j75$noaccoun$", b"$7$": b"$7$46..../....noaccount$"}
"""Settings of these kinds that need very little memory, by their first bytes."""

_BRACES = re.compile(rb"\A\{[^}]*\}")


class StoredPassword:
    """The stored hash and clear text of one account: a `Secret`."""

    __slots__ = ("_clear", "_hash")

    def __init__(self, hashed: bytes, clear: bytes) -> None:
        self._hash = hashed
        self._clear = clear

    def __repr__(self) -> str:
        return "StoredPassword(...)"

    def __reduce_ex__(self, *_: object) -> NoReturn:
        raise TypeError("stored passwords are not copied")

    __getstate__ = __reduce__ = __reduce_ex__

    def verify(self, proof: Proof, service: str) -> bool:
        """Whether this proof is right for this service.  Raises `Unavailable`."""
        return self.check(proof, service) is True

    def check(self, proof: Proof, service: str) -> bool | None:
        """Whether this proof is right; None: there was nothing to check it against.  Raises `Unavailable`."""
        if isinstance(proof, Password):
            return self._check_password(proof)
        return self._check_response(proof, service)

    def _check_password(self, proof: Password) -> bool | None:
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

    def _check_response(self, proof: Challenge, service: str) -> bool | None:
        if not proof.challenge or b"\0" in proof.challenge:
            return None
        if not self._hash.partition(b"\0")[0] or not self._clear_text():
            return None
        match proof.type, service:
            case b"CRAM-MD5", ("smtp" | "submission"):
                return _is_digest(self._cram_md5(proof.challenge), proof)
            case b"APOP", "pop3":
                return _is_digest(self._apop(proof.challenge), proof)
        return None

    def _cram_md5(self, challenge: bytes) -> HMAC:
        import hmac

        _md5()  # if the host has no MD5, fail here, and not in hmac while it holds the key
        digest = hmac.new(self._clear_text(), digestmod=_md5)
        digest.update(challenge)
        return digest

    def _apop(self, challenge: bytes) -> Digest:
        digest = _md5()
        digest.update(challenge)
        digest.update(self._clear_text())
        return digest

    def _wants_memory(self) -> bool:
        """Whether crypt refused a hash for lack of memory; libxcrypt returns EINVAL for that and for a wrong format."""
        if not _MEMORY_HARD.match(self._setting()):
            return False
        return StoredPassword(_CHEAPEST[self._setting()[:3]], b"").check(Password(b"x"), "") is not None

    def _setting(self) -> bytes:
        """The hash for crypt(3): without one leading ``{...}``."""
        return _BRACES.sub(b"", self._hash.partition(b"\0")[0])

    def _clear_text(self) -> bytes:
        return self._clear.partition(b"\0")[0]

    def kind(self) -> bytes:
        """The hash without its digest; empty for an unknown format."""
        kinds = _KIND.findall(self._setting())
        return b"".join(kinds[0]) if kinds else b""


def _md5(data: bytes = b"") -> Digest:
    import hashlib  # imported here: it and hmac take 4 ms, which command mode saves

    # usedforsecurity: else it is refused on hosts that forbid MD5; the protocols have no other digest
    return hashlib.md5(data, usedforsecurity=False)


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
    raise Unavailable("crypt", detail, kind=Kind.MISCONFIGURED)


class TimingEqualizer:
    """Tries proofs on one service so that an unknown account takes as long as a wrong password.

    An unknown account's proof is tried on the kind of hash (algorithm, cost, salt; never a digest) of the last
    account of its domain whose hash was completed; so a kind that takes absurdly long, or that crypt refuses, is
    never used.
    """

    __slots__ = ("_kinds", "_limit", "_service")

    def __init__(self, service: str, limit: int = DOMAINS) -> None:
        self._service = service
        self._limit = limit
        self._kinds: dict[bytes, bytes] = {}
        """By domain; the most recent one is last."""

    def verify(self, domain: bytes, secret: Secret, proof: Proof) -> bool:
        """Whether this proof is right for an account of `domain`.  Raises `Unavailable`."""
        if not isinstance(secret, StoredPassword):
            return secret.verify(proof, self._service)
        right = secret.check(proof, self._service)
        if right is None:
            self.spend(domain, proof)
            return False
        if isinstance(proof, Password):
            self._remember(domain, secret.kind())
        return right

    def spend(self, domain: bytes, proof: Proof) -> None:
        """Takes as long as a wrong proof in `domain`.  Raises `Unavailable`."""
        kind = self._kinds.get(domain, _UNKNOWN)
        if StoredPassword(kind, b"no account").check(proof, self._service) is None:
            StoredPassword(_UNKNOWN, b"no account").check(proof, self._service)

    def _remember(self, domain: bytes, kind: bytes) -> None:
        if kind and len(kind) <= _KIND_LIMIT:
            self._kinds.pop(domain, None)
            self._kinds[domain] = kind
            if len(self._kinds) > self._limit:
                del self._kinds[next(iter(self._kinds))]
