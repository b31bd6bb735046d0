"""Which records of users/cdb are vpopmail's."""

from __future__ import annotations

from cvm_qmail.rules import users


def is_domain_record(user: users.User, local: bytes) -> bool:
    """Whether the record of users/cdb that matched `local` is a vpopmail domain's.

    That is: key ``!X-``, dash ``-``, no ext, and a name with a dot.
    """
    return (
        user.key is not None
        and user.key.startswith(b"!")
        and user.key.endswith(b"-")
        and user.dash == b"-"
        and b"." in user.name
        and len(user.ext) == len(local) - len(user.key) + 1
    )
