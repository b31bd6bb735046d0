"""What the errors of file calls mean.

Source: error_temp.c (the temporary ones).
"""

from __future__ import annotations

import errno

from cvm_qmail.answer import Unavailable

TEMPORARY = frozenset(
    {
        errno.EINTR, errno.ENOMEM, errno.ETXTBSY, errno.EIO, errno.ETIMEDOUT, errno.EAGAIN, errno.EDEADLK,
        errno.EBUSY, errno.ENFILE, errno.EMFILE, errno.EFBIG, errno.ENOSPC, errno.ENETDOWN, errno.ENETUNREACH,
        errno.ENETRESET, errno.ECONNABORTED, errno.ECONNRESET, errno.ENOBUFS, errno.ETOOMANYREFS,
        errno.ECONNREFUSED, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.EUSERS, errno.EDQUOT, errno.ESTALE,
        errno.ENOLCK,
    }
)  # fmt: skip
"""error_temp.c: errors that may go away by themselves."""

REFUSED = frozenset({errno.EACCES, errno.EPERM})
"""Errors that are about the user's rights, not about the file."""


def raise_if_temporary(error: OSError, reason: str, path: bytes) -> None:
    """Raises `Unavailable` for an error that qmail calls temporary, since it is no answer (error_temp.c)."""
    if error.errno in TEMPORARY:
        raise Unavailable(reason, describe(error), path, errno=error.errno) from None


def describe(error: OSError) -> str:
    """The error without the path, which travels beside it."""
    return error.strerror or str(error)
