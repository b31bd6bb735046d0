"""The interface of plug-ins, and all that they import: the types of modules and programs, and their arguments.

A *module* (entry points ``cvm_qmail.modules``) is a factory that takes `Tables` and `Settings` and
returns a `Module`: a lookup, and perhaps a way to authenticate.  A *program* (entry points
``cvm_qmail.programs``) is a factory that takes the same and returns a function of a `Delivery`: it answers what its
delivery program would do with the lines of the deciding .qmail file, or None if they are not its own.  No base class,
no life-cycle: ask `Tables` for what is needed, return functions.

A program's answer may leave `user` and `facts` out: they are then those of the controlling user.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from cvm_qmail.answer import Answer, Facts, Kind, Outcome, Recipient, Table, Unavailable, Verdict
from cvm_qmail.process.network import NOTHING, Network
from cvm_qmail.rules import domains, dotqmail, users
from cvm_qmail.rules.exit_status import BOUNCES, DEFER, NOT_FOUND, STOP, Ran
from cvm_qmail.settings import BadSetting, Settings
from cvm_qmail.tables.backends import BackendState
from cvm_qmail.tables.cdb import Database
from cvm_qmail.tables.door import FileAccess, Rights, Tables

__all__ = [
    "BOUNCES",
    "DEFER",
    "NOTHING",
    "NOT_FOUND",
    "STOP",
    "Answer",
    "Authenticate",
    "BackendState",
    "BadSetting",
    "Challenge",
    "Database",
    "Delivery",
    "Facts",
    "FileAccess",
    "Kind",
    "Lookup",
    "Module",
    "ModuleFactory",
    "Network",
    "Outcome",
    "Password",
    "Plugin",
    "Program",
    "ProgramFactory",
    "Proof",
    "Ran",
    "Recipient",
    "Resolved",
    "Resolver",
    "Rights",
    "Route",
    "RunProgram",
    "Settings",
    "Table",
    "Tables",
    "Unavailable",
    "Verdict",
    "domains",
    "dotqmail",
    "users",
]


class Password(NamedTuple):
    """A password in clear text as a proof.  Its repr shows nothing."""

    password: bytes

    def __repr__(self) -> str:
        return "Password(...)"


class Challenge(NamedTuple):
    """A proof by challenge and response.  Its repr shows nothing."""

    challenge: bytes
    response: bytes
    type: bytes

    def __repr__(self) -> str:
        return "Challenge(...)"


Proof = Password | Challenge
Lookup = Callable[[Recipient], Answer]
Authenticate = Callable[[Recipient, Proof], Answer]


class Route(NamedTuple):
    """Where qmail-send routes an address."""

    address: bytes
    """The complete address, with envnoathost added if there was no ``@``."""
    domain: bytes
    """The domain to answer with: that of the address, in lower case, or CVM_QMAIL_MISSINGDOMAIN."""
    target: domains.Local | domains.Remote
    """`Local.table` names the control file or the setting that makes it local."""


class Resolved(NamedTuple):
    """Who controls an address."""

    recipient: Recipient
    route: Route | None
    """None: decided before any rule (then `answer` is set)."""
    user: users.User | None
    """The controlling user.  None: nobody, since the address is out of scope, or its local part is empty."""
    answer: Answer | None
    """Set if the address is decided without reading a home."""


class Resolver(Protocol):
    """Who controls an address, by qmail's rules.  Each method raises `Unavailable` where qmail could not decide."""

    def route(self, recipient: Recipient) -> Route:
        """Where qmail-send routes the address (qmail-send.c, rewrite)."""
        ...

    def controller(self, local: bytes) -> users.User:
        """Who controls a local part (qmail-lspawn.c, nughde_get; qmail-getpw.c)."""
        ...

    def resolve(self, recipient: Recipient) -> Resolved:
        """Both steps: the route and the controlling user."""
        ...


class Module(NamedTuple):
    """What a server serves.  Without a secret in the environment it calls `authenticate`, if there is one."""

    lookup: Lookup
    authenticate: Authenticate | None = None
    repeatable: bool = False
    """Whether `lookup` reads all through `Tables`, so that a response may be cached while that is unchanged."""
    assumptions: tuple[str, ...] = ()
    """What it assumes about this host: lines that are logged at start."""
    resolver: Resolver | None = None
    """Finds the controlling user, for commands that explain an address."""
    network: Network = NOTHING
    """The sockets that it opens.  The sandbox refuses all others."""
    reads_host: bool = True
    """Whether it looks at qmail's files and at homes; what it lacks for that is said at start."""


class Delivery(NamedTuple):
    """What qmail-local knows when it begins to process a .qmail file."""

    recipient: Recipient
    user: users.User
    dash: bytes
    ext: bytes
    host: bytes
    """What follows the last ``@`` of the address, as the sender wrote it."""
    file: dotqmail.Found
    local: bytes
    """The local part that qmail-local is run for (its LOCAL): after percenthack, with what virtualdomains
    prepended, in the sender's case."""
    runs: tuple["RunProgram", ...] = ()
    """Plug-ins and the shell: they know the exit status that a program would have."""

    @property
    def default(self) -> bytes | None:
        """What ``default`` stands for: DEFAULT of qmail-command(8)."""
        if self.file.default:
            return self.ext[len(self.file.name) - len(b".qmail") - len(self.dash) - len(b"default") :]
        if self.ext.lower().endswith(b"default"):  # qmail-local checks only the name
            return self.ext[-len(b"default") :]
        return None

    @property
    def variables(self) -> dict[bytes, bytes]:
        """The environment of a program, as far as it depends on the address and the home."""
        found = {
            b"USER": self.user.name,
            b"HOME": self.user.home,
            b"LOCAL": self.local,
            b"EXT": self.ext,
            b"HOST": self.host,
            b"RECIPIENT": b"%s@%s" % (self.local, self.host),
        }
        default = self.default
        if default is not None:
            found[b"DEFAULT"] = default
        return found

    def path(self, name: bytes) -> bytes:
        """The path of a file name for a program, which starts in the home."""
        while name.startswith(b"./"):  # in its shortest form, so that it can be checked again later
            name = name[2:].lstrip(b"/")
        return name if name.startswith(b"/") else b"%s/%s" % (self.user.home, name or b".")

    def shell(self, command: bytes) -> Ran | None:
        """What ``/bin/sh -c`` of a command, as in a program line, would exit with; None: not known without a run.

        Raises `Unavailable` where the program would defer because it cannot read something.
        """
        from cvm_qmail.rules import program_line  # imported only for addresses that need it

        understood = program_line.simple(command, self.variables if b"$" in command else {})
        if understood is None:
            return None
        status = program_line.builtin_status(understood)
        return self.execute(understood.words) if status is None else Ran(status)

    def execute(self, words: Sequence[bytes]) -> Ran | None:
        """The same for execvp(3) of a program with its arguments."""
        if len(words) > WORDS:
            return None
        for run in self.runs:
            ran = run(self, words)
            if ran is not None:
                return ran
        return None


WORDS = 100
"""Words of a command that are followed: programs may run one another."""

ModuleFactory = Callable[[Tables, Settings], Module]
Program = Callable[[Delivery], "Answer | None"]
RunProgram = Callable[[Delivery, Sequence[bytes]], "Ran | None"]
"""The result that a program with these arguments would have; it is never run.

None: not ours, or not known without a run.
"""


class Plugin(NamedTuple):
    """A program and its properties."""

    program: Program | None = None
    """Answers for a whole .qmail file; None: only `run` is used."""
    repeatable: bool = False
    """Whether it reads everything through `Tables`, so that a response may be cached while all of it is unchanged."""
    assumptions: tuple[str, ...] = ()
    """What it assumes about this host: lines that are logged at start."""
    run: RunProgram | None = None
    """Answers for a single command, when the lines of a file are followed."""
    network: Network = NOTHING
    """The sockets that it opens.  The sandbox refuses all others."""


ProgramFactory = Callable[[Tables, Settings], Plugin]
"""An entry point of ``cvm_qmail.programs``."""
