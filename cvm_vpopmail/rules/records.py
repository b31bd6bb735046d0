"""Which records of users/cdb are vpopmail's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cvm_qmail.rules import users

if TYPE_CHECKING:
    from cvm_qmail.plugin import Delivery


def is_domain(user: users.User) -> bool:
    """Whether a record of users/cdb can be a vpopmail domain's: key ``!X-``, dash ``-``, and a name with a dot."""
    key = user.key
    return key is not None and key.startswith(b"!") and key.endswith(b"-") and user.dash == b"-" and b"." in user.name


def is_domain_record(user: users.User, local: bytes) -> bool:
    """Whether the record of users/cdb that matched `local` is a vpopmail domain's: it has no ext of its own, either."""
    return user.key is not None and is_domain(user) and len(user.ext) == len(local) - len(user.key) + 1


def concerns(delivery: Delivery) -> bool:
    """Whether vpopmail may have a say: the record is a domain's, or the deciding file has the word vdelivermail."""
    return is_domain_record(delivery.user, delivery.local) or b"vdelivermail" in (delivery.file.file.content or b"")
