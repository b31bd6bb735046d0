"""Whose rights count, judged by processes of every kind: root, nobody in particular, and one with capabilities."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hosts import NOFILES, QMAILP_UID, Host, mounted, temporary_directory
from serving import PLUGINS, Server, serving, until

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables import rights
from cvm_qmail.tables.door import Tables
from cvm_qmail.tables.rights import Rights, Switch

pytestmark = [pytest.mark.root, pytest.mark.peer("setpriv", "setfacl")]

YES, NO, TEMPORARY = 0, 100, 4

JOE = Rights(5001, 5001)
SERVER = Rights(5077, 5078)
_ABOUT = f"--reuid={SERVER.uid}", f"--regid={SERVER.gid}", "--clear-groups"
_CAPABILITIES = "+setuid,+setgid,+dac_read_search"
WITH_CAPABILITIES = ["setpriv", *_ABOUT, f"--inh-caps={_CAPABILITIES}", f"--ambient-caps={_CAPABILITIES}"]
ONLY_SWITCHING = ["setpriv", *_ABOUT, "--inh-caps=+setuid,+setgid", "--ambient-caps=+setuid,+setgid"]
NOBODY = ["setpriv", *_ABOUT]
IN_MANY_GROUPS = ["setpriv", "--groups=5001,5003,5009"]

EXACT = {"root": [], "capabilities": WITH_CAPABILITIES, "root in many groups": IN_MANY_GROUPS}


@contextmanager
def serving_as(host: Host, wrapper: list[str], **more: str) -> Iterator[Server]:
    """A server that `wrapper` starts, with a directory of its own for its socket."""
    with temporary_directory() as directory:
        if wrapper and wrapper is not IN_MANY_GROUPS:
            os.chown(directory, *SERVER)
        with serving(host, wrapper=wrapper, path=directory / "s", **more) as server:
            yield server


def workers(server: Server, count: int) -> list[int]:
    """The workers, when the child that gives advice at start is gone."""
    return until(lambda: (pids := server.workers()) and len(pids) == count and pids)


@pytest.fixture(params=EXACT)
def exact(request: pytest.FixtureRequest, host: Host) -> Iterator[Server]:
    """A server that may look with anybody's rights."""
    with serving_as(host, EXACT[request.param]) as server:
        assert server.ask("joe").code == YES
        yield server


def acl(path: Path, *entries: str) -> None:
    for entry in entries:
        subprocess.run(["setfacl", "-m", entry, path], check=True)


def in_a_child(check: Callable[[], None], rights: Rights | None = None) -> int:
    """Exit status of a child that makes this check, with `rights` only if they are given; 0: it holds."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            if rights is not None:
                os.setgroups([])
                os.setgid(rights.gid)
                os.setuid(rights.uid)
            check()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def expect(truth: bool) -> None:
    """An assertion that fits into a lambda."""
    assert truth


def in_cdb(host: Host, uid: int = 5001, gid: int = 5001) -> None:
    """joe without the password file: how qmailp sees things does not matter then."""
    host.users(
        f"=joe:joe:{uid}:{gid}:{{root}}/home/joe:::",
        f"+joe-:joe:{uid}:{gid}:{{root}}/home/joe:-::",
    )


# -- homes --------------------------------------------------------------------------------------------


def test_a_private_home_is_seen_by_its_user(exact: Server, host: Host) -> None:
    (host.root / "home/joe").chmod(0o700)
    (host.root / "home/joe/.qmail-foo").chmod(0o600)
    assert [exact.ask(name).code for name in ("joe", "joe-foo", "joe-x")] == [YES, YES, NO]


def test_a_private_home_of_somebody_else_is_a_temporary_failure(exact: Server, host: Host) -> None:
    in_cdb(host)
    os.chown(host.root / "home/joe", 5002, 5002)
    (host.root / "home/joe").chmod(0o700)
    assert [exact.ask(name).code for name in ("joe", "joe-foo", "joe-x")] == [TEMPORARY] * 3
    assert f" home-denied {host.root}/home/joe " in exact.logged("? joe-foo@example.org")


def test_a_home_of_root_that_its_user_may_not_enter_is_a_temporary_failure(exact: Server, host: Host) -> None:
    in_cdb(host)
    os.chown(host.root / "home/joe", 0, 0)
    (host.root / "home/joe").chmod(0o700)
    assert exact.ask("joe-foo").code == TEMPORARY


def test_the_one_group_counts(exact: Server, host: Host) -> None:
    in_cdb(host, gid=5003)
    os.chown(host.root / "home/joe", 0, 5003)
    (host.root / "home/joe").chmod(0o750)
    assert exact.ask("joe-foo").code == YES
    os.chown(host.root / "home/joe", 0, 5009)
    assert exact.ask("joe-foo").code == TEMPORARY


def test_owner_bits_bind_the_owner_even_if_others_may_more(exact: Server, host: Host) -> None:
    in_cdb(host)
    (host.root / "home/joe").chmod(0o075)
    assert exact.ask("joe-foo").code == TEMPORARY
    (host.root / "home/joe").chmod(0o755)
    (host.root / "home/joe/.qmail-foo").chmod(0o044)
    assert exact.ask("joe-foo").code == TEMPORARY
    os.chown(host.root / "home/joe/.qmail-foo", 0, 5001)
    (host.root / "home/joe/.qmail-foo").chmod(0o604)
    assert exact.ask("joe-foo").code == TEMPORARY


def test_an_access_list_that_refuses_what_the_bits_grant_counts(exact: Server, host: Host) -> None:
    in_cdb(host)
    home = host.root / "home/joe"
    os.chown(home, 0, 0)
    assert exact.ask("joe-foo").code == YES
    acl(home, "u:5001:-")
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(home, "u:5001:rx")
    os.chown(home / ".qmail-foo", 0, 0)
    assert exact.ask("joe-foo").code == YES
    acl(home / ".qmail-foo", "u:5001:-")
    assert exact.ask("joe-foo").code == TEMPORARY


def test_an_access_list_that_grants_what_the_bits_refuse_counts(exact: Server, host: Host) -> None:
    in_cdb(host)
    home = host.root / "home/joe"
    for path in (home, home / ".qmail-foo"):
        os.chown(path, 0, 0)
        path.chmod(0o700)
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(home, "u:5001:x")
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(home / ".qmail-foo", "u:5001:r")
    assert exact.ask("joe-foo").code == YES


def test_an_access_list_for_the_group_counts_and_so_does_its_mask(exact: Server, host: Host) -> None:
    in_cdb(host, gid=5003)
    home = host.root / "home/joe"
    os.chown(home, 0, 0)
    home.chmod(0o700)
    acl(home, "g:5003:rx")
    assert exact.ask("joe-foo").code == YES
    acl(home, "m::-")
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(home, "g:5003:-,m::rx,o::rx")
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(home, "m::-")  # Linux does not look at a list with an empty mask: others may enter, so joe may
    assert exact.ask("joe-foo").code == YES


def test_an_access_list_on_the_way_counts(exact: Server, host: Host) -> None:
    in_cdb(host)
    acl(host.root / "home", "u:5001:-")
    assert exact.ask("joe-foo").code == TEMPORARY
    acl(host.root / "home", "u:5001:x", "o::-")
    assert exact.ask("joe-foo").code == YES


def test_a_home_by_way_of_links_is_judged_where_it_is(exact: Server, host: Host) -> None:
    in_cdb(host)
    secret = host.directory("secret", mode=0o755)
    (host.root / "home/joe").rename(secret / "joe")
    (host.root / "home/joe").symlink_to(secret / "joe")
    assert exact.ask("joe-foo").code == YES
    secret.chmod(0o700)
    assert exact.ask("joe-foo").code == TEMPORARY


def test_a_qmail_file_by_way_of_links_is_judged_where_it_is(exact: Server, host: Host) -> None:
    secret = host.directory("secret", mode=0o755)
    host.file("secret/file", mode=0o644)
    (host.root / "home/joe/.qmail-foo").unlink()
    (host.root / "home/joe/.qmail-foo").symlink_to(secret / "file")
    assert exact.ask("joe-foo").code == YES
    (secret / "file").chmod(0o600)
    assert exact.ask("joe-foo").code == TEMPORARY
    (secret / "file").chmod(0o644)
    secret.chmod(0o700)
    assert exact.ask("joe-foo").code == TEMPORARY


def test_a_directory_in_an_extension_that_may_not_be_searched_is_a_temporary_failure(exact: Server, host: Host) -> None:
    host.directory("home/joe/.qmail-d", uid=0, mode=0o700)
    host.file("home/joe/.qmail-d/e", mode=0o644)
    assert exact.ask("joe-d/e").code == TEMPORARY
    (host.root / "home/joe/.qmail-d").chmod(0o711)
    assert exact.ask("joe-d/e").code == YES


# -- qmailp and qmails --------------------------------------------------------------------------------


def test_homes_that_qmailp_cannot_see_are_no_homes(exact: Server, host: Host) -> None:
    home = host.root / "home"
    os.chown(home, 0, 5001)
    home.chmod(0o710)  # joe may pass, qmailp may not
    assert exact.ask("joe-foo").code == NO
    os.chown(home, QMAILP_UID, 5001)
    assert exact.ask("joe-foo").code == YES
    os.chown(home, 0, 0)
    home.chmod(0o700)
    acl(home, f"g:{NOFILES}:x", "u:5001:x")
    assert exact.ask("joe-foo").code == YES


def test_control_files_are_read_as_qmails(exact: Server, host: Host) -> None:
    path = host.root / "control/locals"
    path.chmod(0o600)
    assert exact.ask("joe").code == TEMPORARY
    acl(path, "u:5096:r")
    assert exact.ask("joe").code == YES


def test_a_plug_in_reads_with_the_rights_it_asks_for(host: Host) -> None:
    host.file("home/joe/.qmail-mine", f"|taste {host.root}/home/joe/mine\n", uid=5001, gid=5001)
    host.file("home/joe/.qmail-roots", f"|taste {host.root}/home/joe/roots\n", uid=5001, gid=5001)
    host.file("home/joe/mine", mode=0o600, uid=5001, gid=5001)
    host.file("home/joe/roots", mode=0o600)
    with serving(host, PYTHONPATH=PLUGINS) as server:
        assert [server.ask(name).code for name in ("joe-mine", "joe-roots")] == [YES, TEMPORARY]


# -- who may make files -------------------------------------------------------------------------------


def looking(host: Host) -> Tables:
    """Fresh eyes, with the rights of this process."""
    tables = Tables(Settings.from_environment(host.environment))
    tables.request()
    return tables


def writable(host: Host) -> bool | None:
    return looking(host).writable(os.fsencode(host.root / "mail"), JOE)


def test_access_lists_say_who_may_make_files(host: Host) -> None:
    mail = host.directory("mail", mode=0o700)
    assert writable(host) is False
    acl(mail, "u:5001:wx")
    assert writable(host) is True
    acl(mail, "m::x")
    assert writable(host) is False
    os.chown(mail, 5001, 5001)
    assert writable(host) is True, "the list does not bind the owner"


def test_nobody_makes_files_on_a_file_system_that_is_mounted_for_reading_only(host: Host) -> None:
    mail = host.directory("mail", mode=0o777)
    with mounted(mail, mail, "-o", "ro"):
        assert writable(host) is False
        assert looking(host).writable(os.fsencode(mail)) is False
        assert in_a_child(lambda: expect(writable(host) is False), SERVER) == 0
    assert writable(host) is True


def test_without_any_right_bits_say_who_may_make_files(host: Host) -> None:
    mail = host.directory("mail", mode=0o700, uid=5001, gid=5003)
    for mode, answer in ((0o700, True), (0o300, True), (0o200, False), (0o077, False), (0o500, False)):
        mail.chmod(mode)
        assert in_a_child(lambda answer=answer: expect(writable(host) is answer), SERVER) == 0, oct(mode)


def test_a_process_looks_exactly_as_itself_and_if_it_may_switch_as_anybody(host: Host) -> None:
    def exact(*others: Rights | None) -> list[bool]:
        return [looking(host).exact(rights) for rights in others]

    assert exact(None, JOE, SERVER) == [True, True, True]
    assert in_a_child(lambda: expect(exact(None, JOE, SERVER) == [True, False, True]), SERVER) == 0


# -- processes that may less --------------------------------------------------------------------------


def test_without_any_right_it_judges_by_bits_and_says_so(host: Host) -> None:
    with serving_as(host, NOBODY) as server:
        server.warned("warning: not privileged")
        assert [server.ask(name).code for name in ("joe", "joe-foo", "joe-x", "ann-x")] == [YES, YES, NO, YES]
        (host.root / "home/joe/.qmail-foo").chmod(0o600)  # joe may read it, this process may not
        assert server.ask("joe-foo").code == YES
        os.chown(host.root / "home/joe/.qmail-foo", 0, 0)
        assert server.ask("joe-foo").code == TEMPORARY
        (host.root / "home/joe/.qmail-foo").chmod(0o644)
        (host.root / "home/joe").chmod(0o1755)
        assert server.ask("joe").code == TEMPORARY


def test_without_any_right_what_it_cannot_see_is_a_temporary_failure_and_never_a_no(host: Host) -> None:
    with serving_as(host, NOBODY) as server:
        (host.root / "home/joe").chmod(0o700)
        assert [server.ask(name).code for name in ("joe-foo", "joe-x")] == [TEMPORARY, TEMPORARY]
        (host.root / "home/joe").chmod(0o755)
        (host.root / "home").chmod(0o711)
        assert server.ask("joe-foo").code == YES
        in_cdb(host)
        (host.root / "home").chmod(0o700)
        assert server.ask("joe-foo").code == TEMPORARY
        (host.root / "control").chmod(0o700)
        assert server.ask("joe").code == TEMPORARY


def test_switching_without_reading_capabilities_is_exact_for_homes(host: Host) -> None:
    with serving_as(host, ONLY_SWITCHING) as server:
        in_cdb(host)
        (host.root / "home/joe").chmod(0o700)
        (host.root / "home/joe/.qmail-foo").chmod(0o600)
        assert [server.ask(name).code for name in ("joe", "joe-foo", "joe-x")] == [YES, YES, NO]
        os.chown(host.root / "home/joe", 0, 0)
        assert server.ask("joe-foo").code == TEMPORARY
        acl(host.root / "home/joe", "u:5001:x")
        assert server.ask("joe-foo").code == YES


def test_workers_of_root_keep_only_what_they_need(server: Server) -> None:
    def effective(pid: int) -> int:
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return int(status["CapEff"], 16)

    assert server.ask("joe").code == YES
    for pid in workers(server, 2):  # the other one may have just been forked
        until(lambda pid=pid: effective(pid) == rights._NEEDED, "it keeps what it needs")


def test_no_right_is_left_over_after_a_lookup(host: Host) -> None:
    for wrapper, uid in (([], 0), (WITH_CAPABILITIES, SERVER.uid)):
        with serving_as(host, wrapper, CVM_WORKERS="1") as server:
            in_cdb(host)
            (host.root / "home/joe").chmod(0o700)
            assert server.ask("joe-foo").code == YES
            [pid] = workers(server, 1)
            status = dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            assert set(status["Uid"].split()) == {str(uid)}
            assert status["Groups"].strip() == ""
            assert int(status["CapEff"], 16) == rights._NEEDED
            (host.root / "home/joe").chmod(0o755)


# -- the switch itself --------------------------------------------------------------------------------


def test_the_switch_gives_the_rights_for_one_call_only(host: Host) -> None:
    path = host.file("secret", b"x", mode=0o600)
    switch = Switch()
    os.close(os.open(path, os.O_RDONLY))
    with pytest.raises(PermissionError):
        switch.run(JOE, os.open, path, os.O_RDONLY)
    os.close(os.open(path, os.O_RDONLY))
    os.chown(path, 5001, 5001)
    os.close(switch.run(JOE, os.open, path, os.O_RDONLY))


def test_what_a_call_raises_comes_through_and_rights_come_back(host: Host) -> None:
    def fails() -> None:
        raise OSError(errno.EIO, "made up")

    switch = Switch()
    with pytest.raises(OSError, match="made up"):
        switch.run(JOE, fails)
    path = host.file("secret", b"x", mode=0o600)
    os.close(os.open(path, os.O_RDONLY))


@pytest.mark.parametrize("wrong", [Rights(2**32 - 1, 5001), Rights(5001, 2**32 - 1)])
def test_an_id_that_the_kernel_refuses_is_a_temporary_failure(wrong: Rights) -> None:
    with pytest.raises(Unavailable, match="bad-id"):
        Switch().run(wrong, os.getpid)
    os.close(os.open("/etc/shadow", os.O_RDONLY))


def test_a_process_without_capabilities_may_not_switch() -> None:
    def check() -> None:
        assert not Switch().may
        assert rights.drop_groups()

    assert in_a_child(check, SERVER) == 0


def test_supplementary_groups_are_left_when_that_is_allowed() -> None:
    def allowed() -> None:
        os.setgroups([5001, 5002])
        assert rights.drop_groups()
        assert os.getgroups() == []

    def forbidden() -> None:
        os.setgroups([5001, 5002])
        os.setuid(5077)
        assert not rights.drop_groups()

    assert in_a_child(allowed) == 0
    assert in_a_child(forbidden) == 0
