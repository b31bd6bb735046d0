"""The programs that .qmail files run most often, as plug-ins of cvm-qmail.

Invariants: nothing found in a home is ever run.  A program is known by its name and by the directory
in which it is usually kept.  If a result is not known without a run, the address is accepted.  An address costs
nothing that it does not need: neither a file nor an import.

Source: docs/programs.md; a module for each program.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib import import_module

from cvm_qmail.plugin import NOT_FOUND, Delivery, Plugin, Ran, Rights, Settings, Tables

ProgramRule = Callable[[Sequence[bytes], Delivery, Tables], "Ran | None"]
"""The result of a program with these arguments; None: not known without a run.  Raises `Unavailable`."""

USUAL = (b"/var/qmail/bin", b"/var/lib/qmail/bin", b"/usr/bin", b"/usr/local/bin", b"/usr/sbin")
"""The directories of qmail's programs, in addition to QMAIL_ROOT/bin."""

_STATUSES = {b"true": Ran(0), b"false": Ran(1)}
_SYSTEM = (b"/bin", b"/usr/bin")


def fastforward(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in for fastforward."""
    return _following({b"fastforward": "fastforward"}, tables, settings)


def dot_forward(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in for dot-forward."""
    return _following({b"dot-forward": "dotforward"}, tables, settings)


def vmailmgr(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in for vmailmgr's vdeliver.  Raises `BadSetting`."""

    @cache
    def vdeliver() -> ProgramRule:
        from cvm_qmail.programs.vmailmgr import Vdeliver
        from cvm_qmail.programs.vmailmgr_config import Policy

        return Vdeliver(Policy.from_settings(settings))

    def rule(arguments: Sequence[bytes], delivery: Delivery, tables: Tables) -> Ran | None:
        return vdeliver()(arguments, delivery, tables)

    if any("VMAILMGR_" in name for name in settings.environment):  # without one there is nothing to check
        vdeliver()  # raises now, not at the first address

    return _following({b"vdeliver": rule}, tables, settings)


def qmail(tables: Tables, settings: Settings) -> Plugin:
    """The plug-in for the programs that come with qmail, and for true and false."""
    modules = {name: name.decode() for name in (b"bouncesaying", b"condredirect", b"forward", b"preline")}
    own = _following(modules | {b"except": "except_"}, tables, settings).run

    def run(delivery: Delivery, words: Sequence[bytes]) -> Ran | None:
        directory, slash, name = words[0].rpartition(b"/")
        if name in _STATUSES:
            return _STATUSES[name] if not slash or _plain(directory) in _SYSTEM else None
        return own(delivery, words) if own else None

    return Plugin(run=run, repeatable=True)


def _following(modules: Mapping[bytes, str | ProgramRule], tables: Tables, settings: Settings) -> Plugin:
    """The plug-in for programs by name, each with its rule, or the module of it, imported when it is needed."""
    directories = frozenset((*USUAL, settings.qmail_root + b"/bin"))
    rules: dict[bytes, ProgramRule] = {}

    def run(delivery: Delivery, words: Sequence[bytes]) -> Ran | None:
        directory, slash, name = words[0].rpartition(b"/")
        if name not in modules:
            return None
        if slash and directory not in directories and _plain(directory) not in directories:
            return _elsewhere(words[0], delivery, tables)
        rule = rules.get(name)
        if rule is None:
            known = modules[name]
            rule = import_module(f"cvm_qmail.programs.{known}").program if isinstance(known, str) else known
            rules[name] = rule
        return rule(words[1:], delivery, tables)

    return Plugin(run=run, repeatable=True)


def _plain(directory: bytes) -> bytes:
    """The directory in its shortest form, as far as its name shows."""
    names: list[bytes] = []
    for name in directory.split(b"/")[1:] if directory.startswith(b"/") else []:
        if name == b"..":
            del names[-1:]
        elif name not in (b"", b"."):
            names.append(name)
    return b"".join(b"/" + name for name in names)


def _elsewhere(program: bytes, delivery: Delivery, tables: Tables) -> Ran | None:
    """The result of a program in another directory: it is a different program, unless it does not exist."""
    path = delivery.path(program)
    missing = tables.as_user(
        Rights(delivery.user.uid, delivery.user.gid), delivery.user.home, lambda files: files.status(path) is None
    )
    return Ran(NOT_FOUND, "program-missing", path) if missing else None
