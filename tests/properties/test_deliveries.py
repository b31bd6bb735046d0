"""Deliveries of vpopmail, whatever users and admins write: rules and real files.

An outcome or `Unavailable`, and nothing else; and a host on a real file system, looked at with the owner's
rights, gives the same as the same host in dicts.  No name is one of a single character: what then counts for a
domain's quota depends on the order in which a file system lists.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from disk import NOW, Asking, Disk
from hosts import temporary_directory
from hypothesis import given
from hypothesis import strategies as st
from strategies import damaged
from vmemory import policy_of

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.plugin import Delivery
from cvm_qmail.rules.dotqmail import DotQmail, Found
from cvm_qmail.rules.users import User
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Rights
from cvm_vpopmail.accounts import Account, Domain, View
from cvm_vpopmail.rules.delivery import judge
from cvm_vpopmail.rules.limits import Limits
from cvm_vpopmail.rules.vdelivermail import Places
from cvm_vpopmail.settings import Vpopmail
from cvm_vpopmail.tables.user_view import UserView

UID, OTHER = 5089, 5001
OWNER = Rights(UID, UID)


class NoSecret:
    def verify(self, *_: object) -> bool:
        raise AssertionError("a delivery asks nobody for a password")


# -- worlds -------------------------------------------------------------------------------------------

_maildirs = [home + part for home in (b"bob", b"ann") for part in (b"", b"/Maildir", b"/Maildir/tmp", b"/Maildir/new")]
_names = st.sampled_from([*_maildirs, b"tmp", b"new", b"Maildir"])
_dotqmails = [b".qmail", b".qmail-default", b"bob/.qmail", b"bob/.qmail-x", b"bob/.qmail-default", b"ann/.qmail"]
_in_maildir = [b"maildirsize", b"new/1,S=50", b".x/cur/2", b"maildirfolder"]
_files = st.sampled_from([*_dotqmails, *(b"bob/Maildir/" + name for name in _in_maildir)])
_line = st.one_of(
    st.sampled_from([b"", b"#", b"&ann", b"./Maildir/", b"./Mailbox", b"../ann/Maildir/", b"bob/Maildir/", b"/", b"."]),
    st.sampled_from(
        [b"|exit 99", b"|exit 100", b"|exit 1", b"|exit 0", b"|prog", b"|", b"././", b"./Maildir/../../ann/"]
    ),
    st.sampled_from([b"|vdelivermail '' delete", b"|vdelivermail '' bounce-no-mailbox", b"|vdelivermail '' ./ann/"]),
    st.sampled_from([b"|vdelivermail", b"|preline vdelivermail '' \"./a b/\"", b"|exec vdelivermail '' $EXT"]),
    st.binary(max_size=20).map(lambda text: text.replace(b"\n", b"")),
)
_lines = st.lists(_line, max_size=4).map(b"\n".join)
_text = damaged(st.one_of(_lines, st.sampled_from([b"100S\n50 1\n", b"NOQUOTA\n", b"5C\n1 1\n2 2\n"])))
_mode = st.sampled_from([0o700, 0o755, 0o600, 0o500, 0o000, 0o300, 0o070, 0o007])
_owner = st.sampled_from([UID, UID, UID, OTHER, 0])


class World(NamedTuple):
    """What is below the domain's directory; paths are relative."""

    directories: dict[bytes, tuple[int, int]]
    files: dict[bytes, tuple[bytes, int, int]]
    links: dict[bytes, bytes]


def _possible(directories: dict[bytes, tuple[int, int]], files: dict[bytes, Any], links: dict[bytes, bytes]) -> World:
    """Without the links where something else is, or below which something is."""
    known = (*directories, *files, *links)
    free = {
        path: target
        for path, target in links.items()
        if path not in directories and not any(other.startswith(path + b"/") for other in known)
    }
    return World(directories, files, {path: target for path, target in free.items() if path not in files})


worlds = st.builds(
    _possible,
    st.dictionaries(_names, st.tuples(_mode, _owner), max_size=8),
    st.dictionaries(_files, st.tuples(_text, _mode, _owner), max_size=5),
    st.dictionaries(
        st.sampled_from([b"bob", b"ann", b"bob/Maildir", b"bob/.qmail", b"Maildir"]),
        st.sampled_from([b"ann", b"bob", b"../ann", b"Maildir", b"loop", b"nowhere", b".", b"..", b".qmail-default"]),
        max_size=2,
    ),
)
_home = st.sampled_from(
    [b"{dd}/bob", b"{dd}/ann", b"{dd}/new", b"{dd}/bob/../ann", b"./bob", b"bob", b"", b"/nowhere", b"{dd}"]
)
accounts = st.builds(
    lambda name, flags, home, limit: Account(name, flags, b"", home, limit, NoSecret()),
    st.sampled_from([b"bob", b"bob-x", b"a"]),
    st.sampled_from([0, 0, 0, 16, 0x7FFFF]),
    _home,
    st.sampled_from([b"NOQUOTA", b"", b"60S", b"2C", b"1000K", b"x"]),
)
users = st.one_of(
    st.sampled_from([b"bob", b"Bob", b"bob-x", b"bob-x.y-z", b"a", b"-", b"", b"nobody", b"b b", b"bob-"]),
    st.binary(max_size=8),
)
policies = st.builds(
    lambda flags, overquota, delete: policy_of(
        **{name: str(int(flag)) for name, flag in zip(_FLAGS, flags, strict=True)},
        CVM_VPOPMAIL_OVERQUOTA=overquota,
        CVM_VPOPMAIL_DELETE=delete,
    ),
    st.tuples(*[st.booleans()] * 5),
    st.sampled_from(["temp", "reject", "accept"]),
    st.sampled_from(["reject", "accept"]),
)
_FLAGS = [
    f"CVM_VPOPMAIL_{name}" for name in ("QMAIL_EXT", "DEFAULT_DELIVERY", "DOMAIN_QUOTAS", "TMDA", "EZMLM_DIRECTORY")
]


def on_disk(world: World, top: bytes) -> Disk:
    """The world in dicts, below `top`."""
    disk = Disk()
    disk.directory(top, mode=0o755, uid=UID)
    for path, (mode, uid) in sorted(world.directories.items()):
        disk.directory(top + b"/" + path, mode=mode, uid=uid)
    for path, (text, mode, uid) in world.files.items():
        disk.file(top + b"/" + path, text, mode=mode, uid=uid)
    for path, target in world.links.items():
        disk.link(top + b"/" + path, target)
    return disk


def on_the_file_system(world: World, top: bytes) -> None:
    """The same for real."""
    os.mkdir(top)
    for path in (*sorted(world.directories), *(os.path.dirname(path) for path in (*world.files, *world.links))):
        os.makedirs(top + b"/" + path, exist_ok=True)
    for path, (text, mode, uid) in world.files.items():
        with open(top + b"/" + path, "wb") as file:
            file.write(text)
        os.chown(top + b"/" + path, uid, uid)
        os.chmod(top + b"/" + path, mode)
        os.utime(top + b"/" + path, (NOW, NOW))
    for path, target in world.links.items():
        os.symlink(target, top + b"/" + path)
    for path, (mode, uid) in world.directories.items():
        os.chown(top + b"/" + path, uid, uid)
        os.chmod(top + b"/" + path, mode)
    os.chown(top, UID, UID)
    os.chmod(top, 0o755)


# -- judging ------------------------------------------------------------------------------------------


TOP = b"/v/d"


def said(view: View, top: bytes, *case: *tuple[bytes, bytes, Account, Vpopmail]) -> tuple[str, str]:
    """The mark and reason of the answer to user@d.example, whose deciding file has these lines."""
    user, lines, account, policy = case
    domain = Domain(b"d.example", UID, UID, top)
    known = account._replace(directory=account.directory.replace(b"{dd}", top))
    own = User(b"d.example", UID, UID, top, b"-", user, b"!d.example-")
    found = Found(b".qmail-default", DotQmail(0o600, lines), default=True)
    delivery = Delivery(Recipient(user, b"d.example"), own, b"-", user, b"d.example", found, b"d.example-" + user)
    places = Places(
        {b"d.example": domain},
        {(domain, known.name): known},
        None,
        Asking(lambda _: Limits(0, 0, 2)),
        view,
        UID,
        top + b"/q",
        lambda: float(NOW),
    )
    try:
        outcome = judge(delivery, places, policy)
    except Unavailable as error:
        return "?", error.reason
    assert outcome is not None, "in the domain's own directory every line counts"
    return outcome.answer.verdict.value, outcome.answer.reason


CATCH_ALLS = [
    b"bounce-no-mailbox",
    b"delete",
    b"ann@x.example",
    b"/nowhere",
    b"./ann/Maildir/",
    b"./ann",
    b"'|exit 100'",
]
deciding = st.one_of(
    st.sampled_from([b"|/v/bin/vdelivermail '' %s\n" % argument for argument in CATCH_ALLS]),
    damaged(_lines),
)


@given(worlds, users, deciding, accounts, policies)
def test_whatever_is_written_it_is_an_outcome_or_a_temporary_failure(
    world: World, user: bytes, lines: bytes, account: Account, policy: Vpopmail
) -> None:
    mark, reason = said(on_disk(world, TOP).seen_by(OWNER), TOP, user, lines, account, policy)
    assert mark in "+-?"
    assert reason


@given(worlds, users, deciding, accounts, policies)
def test_what_only_somebody_else_may_look_at_changes_nothing(
    world: World, user: bytes, lines: bytes, account: Account, policy: Vpopmail
) -> None:
    """The content of a file that the owner may not read is never used."""

    def unread(mode: int, uid: int) -> bool:
        return not mode & (0o400 if uid == UID else 0o004)

    other = {
        path: (b"#" * len(text) if unread(mode, uid) else text, mode, uid)
        for path, (text, mode, uid) in world.files.items()
    }
    case = user, lines, account, policy
    assert said(on_disk(world, TOP).seen_by(OWNER), TOP, *case) == said(
        on_disk(world._replace(files=other), TOP).seen_by(OWNER), TOP, *case
    )


@pytest.mark.root
@given(worlds, users, deciding, accounts, policies)
def test_real_files_and_dicts_agree(
    world: World, user: bytes, lines: bytes, account: Account, policy: Vpopmail
) -> None:
    with temporary_directory() as directory:
        top = os.fsencode(directory / "d")
        on_the_file_system(world, top)
        tables = Tables(Settings.from_environment({"QMAIL_ROOT": str(Path(directory) / "q")}))
        tables.request()
        real = tables.as_user(OWNER, top, lambda looks: said(UserView(looks), top, user, lines, account, policy))
        assert real == said(on_disk(world, top).seen_by(OWNER), top, user, lines, account, policy)
