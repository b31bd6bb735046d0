"""Which system calls each kind of process may make, and with which arguments.

    worker      reads files with other users' rights, and answers; makes no file and no process, and only the sockets
                it needs
    shadow      asks another server
    gateway     talks to clients and to a module; removes its sockets' paths at the end
    supervisor  forks the first two, so it may do what they may, and create its socket again

The lists were made with strace from what the processes really call, with each back end, and grouped by purpose.
Calls that read, or that concern only the process itself, are allowed as whole groups: the next version of the C
library may prefer another call of the same group.

Pure.  Source: the manual pages of the calls; for user names getpwnam(3) with nscd, nss-systemd(8) and the rest.
"""

from __future__ import annotations

from collections.abc import Mapping

from cvm_qmail.process.bpf import Argument, Case, Cases
from cvm_qmail.process.network import EVERYTHING, Network

_CALLS = """
reading: access close close_range faccessat faccessat2 fadvise64 fgetxattr flistxattr fstat fstatfs getcwd getdents
    getdents64 getxattr lgetxattr listxattr llistxattr lseek lstat newfstatat openat2 pread64 preadv preadv2 read
    readlink readlinkat readv stat statfs statx
writing what is open: pwrite64 pwritev pwritev2 write writev
descriptors: dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd2
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch pipe pipe2 poll ppoll pselect6 select
talking: accept accept4 getpeername getsockname getsockopt recvfrom recvmmsg recvmsg sendmmsg sendmsg sendto setsockopt
    shutdown
memory: brk madvise membarrier mremap munmap
signals: pause restart_syscall rt_sigaction rt_sigpending rt_sigprocmask rt_sigreturn rt_sigsuspend rt_sigtimedwait
    sigaltstack
time: alarm clock_getres clock_gettime clock_nanosleep getitimer getrusage gettimeofday nanosleep setitimer time times
self: capget exit exit_group futex get_robust_list getcpu getegid geteuid getgid getgroups getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresuid getrlimit getsid gettid getuid rseq sched_getaffinity sched_yield
    set_robust_list set_tid_address sysinfo uname
rights: capset setfsgid setfsuid
sockets: connect signalfd4 timerfd_create timerfd_gettime timerfd_settime
paths of sockets: unlink unlinkat
supervising: bind chmod chown fchmod fchmodat fchown fchownat fcntl fork ioctl kill landlock_add_rule
    landlock_create_ruleset landlock_restrict_self lchown listen mkdir mkdirat mmap mprotect open openat prctl prlimit64
    rename renameat renameat2 rmdir seccomp setpgid setpriority setrlimit socketpair tgkill umask wait4 waitid
"""
_GROUPS = {
    group: names.split()
    for group, _, names in (line.partition(": ") for line in _CALLS.replace("\n    ", " ").strip().split("\n"))
}
_SPECIAL = {"rights", "sockets", "paths of sockets", "supervising"}
_EVERYBODY = [name for group, names in _GROUPS.items() if group not in _SPECIAL for name in names]
_RIGHTS, _WITH_SOCKETS = _GROUPS["rights"], _GROUPS["sockets"]
_PATHS_OF_SOCKETS, _SUPERVISING = _GROUPS["paths of sockets"], _GROUPS["supervising"]

QUIET = {"clone3": 38, "io_uring_setup": 38, "name_to_handle_at": 95, "memfd_create": 38, "mincore": 38}
"""Calls that the C library or Python tries and can do without: ENOSYS, EOPNOTSUPP."""

_WRITES, _EXECUTES = 2, 4  # PROT_...
_OPENS_TO_WRITE = 0o20003103  # O_ACCMODE, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE
_FORK_FLAGS = 0x7E020080
"""CLONE_NEW...: namespaces."""
_THREAD = 0x00010000
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_STREAM, _DATAGRAM, _SEQPACKET, _TYPE = 1, 2, 5, 0xF
_UNKNOWN_FAMILY = 97  # EAFNOSUPPORT

_IOCTL = frozenset({0x5401, 0x802C542A, 0x541B, 0x5421, 0x5450, 0x5451})
"""TCGETS, TCGETS2, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX."""
_FCNTL = frozenset({0, 1, 2, 3, 4, 1030})
"""F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC."""
_F_SETOWN = 8
_PRCTL = frozenset({3, 15, 16, 39, 0x53564D41})
"""PR_GET_DUMPABLE, PR_SET_NAME, PR_GET_NAME, PR_GET_NO_NEW_PRIVS, PR_SET_VMA."""


def worker(network: Network, pid: int) -> dict[str, Cases]:
    """By name of the call; `pid`: the process's own."""
    return {**dict.fromkeys(_RIGHTS, ()), **shadow(network, pid)}


def shadow(network: Network, pid: int) -> dict[str, Cases]:
    """See the head of this file."""
    return {**dict.fromkeys(_EVERYBODY, ()), **_careful(pid), **_sockets(network)}


def gateway(network: Network, pid: int) -> dict[str, Cases]:
    """See the head of this file.  asyncio looks up host names in threads."""
    threads: Mapping[str, Cases] = {"clone": (Case((Argument(0, _bits(_THREAD), _THREAD),)),)} if network.names else {}
    return {**shadow(network, pid), **dict.fromkeys(_PATHS_OF_SOCKETS, ()), **threads}


def supervisor() -> dict[str, Cases]:
    """See the head of this file.  It runs no program and makes no namespace."""
    may = [*_EVERYBODY, *_RIGHTS, *_PATHS_OF_SOCKETS, *_SUPERVISING]
    return {
        **dict.fromkeys(may, ()),
        **_sockets(EVERYTHING),
        "clone": (Case((Argument(0, _bits(0), _FORK_FLAGS),)),),
    }


def _bits(*values: int) -> frozenset[int]:
    return frozenset(values)


def _careful(pid: int) -> dict[str, Cases]:
    """Calls that could do harm with other arguments."""
    itself: Cases = (Case((Argument(0, _bits(pid)),)),)
    return {
        "open": (Case((Argument(1, _bits(0), _OPENS_TO_WRITE),)),),
        "openat": (Case((Argument(2, _bits(0), _OPENS_TO_WRITE),)),),
        "mmap": (Case((Argument(2, _bits(0, _WRITES, _EXECUTES), _WRITES | _EXECUTES),)),),
        "mprotect": (Case((Argument(2, _bits(0), _EXECUTES),)),),
        "ioctl": (Case((Argument(1, _IOCTL),)),),
        "fcntl": (Case((Argument(1, _FCNTL),)), Case((Argument(1, _bits(_F_SETOWN)), Argument(2, _bits(pid))))),
        "kill": itself,
        "tgkill": itself,
        "prctl": (Case((Argument(0, _PRCTL),)),),
        "prlimit64": (Case((Argument(2, _bits(0)), Argument(2, _bits(0), high=True))),),
    }


def _sockets(network: Network) -> dict[str, Cases]:
    cases: list[Case] = []
    if network.unix or network.names:
        cases.append(Case((Argument(0, _bits(_AF_UNIX)), Argument(1, _bits(_STREAM, _DATAGRAM, _SEQPACKET), _TYPE))))
    kinds = {_STREAM} if network.any_port or network.ports or network.names else set()
    kinds |= {_DATAGRAM} if network.datagrams or network.names else set()
    if kinds:
        cases.append(Case((Argument(0, _bits(_AF_INET, _AF_INET6)), Argument(1, frozenset(kinds), _TYPE))))
    if not cases:
        return {}
    cases.append(Case((Argument(0, _bits(_AF_NETLINK)),), _UNKNOWN_FAMILY))  # getaddrinfo(3) asks for local addresses
    resolver: Mapping[str, Cases] = {"bind": ()} if network.names or network.datagrams else {}
    return {"socket": tuple(cases), **dict.fromkeys(_WITH_SOCKETS, ()), **resolver}
