"""Owner and group of a socket, from names or numbers."""

from __future__ import annotations

import grp
import pwd

from cvm_qmail.settings import BadSetting


def socket_owner(owner: str | None, group: str | None) -> tuple[int, int]:
    """Uid and gid for a socket, by the values of CVM_SOCKET_OWNER and _GROUP; -1: leave.  Raises `BadSetting`."""
    uid = gid = -1
    if owner is not None:
        uid, gid = _user(owner)
    if group is not None:
        gid = _group(group)
    return uid, gid


def _user(text: str) -> tuple[int, int]:
    if text.isdecimal():
        return _id("CVM_SOCKET_OWNER", text, "the name of a user, or a uid"), -1
    try:
        entry = pwd.getpwnam(text)
    except KeyError:
        raise BadSetting("CVM_SOCKET_OWNER", text, "the name of a user, or a uid") from None
    return entry.pw_uid, entry.pw_gid


def _group(text: str) -> int:
    if text.isdecimal():
        return _id("CVM_SOCKET_GROUP", text, "the name of a group, or a gid")
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise BadSetting("CVM_SOCKET_GROUP", text, "the name of a group, or a gid") from None


def _id(name: str, digits: str, expected: str) -> int:
    """The id; raises `BadSetting` for one that chown(2) does not accept: to it the largest means "leave"."""
    number = int(digits[:12])
    if number >= 2**32 - 1:
        raise BadSetting(name, digits, expected)
    return number
