"""cvmctl list: every address that would be accepted, and every pattern of addresses.

Law: what is listed has been asked of the server's own look-up, one by one, and was accepted; control
files, users/cdb, accounts and homes are read only for what is worth asking about.  A list without an
address that exists makes another server refuse good mail, so nothing is written when anything could
not be told, when the list is empty, or when an address cannot be expressed in the format, unless the
administrator says what to do with it.  Files appear whole or not at all.

    joe@example.org              an address
    joe-default@example.org      every address that begins with joe-
    @example.org                 every address of the domain
    joe@*.w.example              in every domain that ends in .w.example; @* in every domain

Source: dot-qmail(5), qmail-users(5), qmail-send(8); validrcptto.cdb; Postfix: access(5), regexp_table(5).
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from stat import S_ISREG
from typing import NamedTuple

import click

from cvm_qmail.answer import Answer, Recipient, Unavailable, Verdict
from cvm_qmail.lookups import Lookup, qmail
from cvm_qmail.rules import users
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Rights, Tables
from cvm_qmail.tool import host
from cvm_qmail.tool.helpers import helpers
from cvm_qmail.tool.show import PERMANENT, TEMPORARY, Failure, escaped, text, warn

PROBE = b"zz9cvmctlprobe"
"""Stands for anything in a pattern: nobody has it, so only a pattern takes it."""

SAID = 5
"""Troubles that are named; the others are counted."""


class Candidate(NamedTuple):
    """What qmail-lspawn might be asked for."""

    local: bytes
    pattern: bool
    """Whether it stands for all that begins so."""


class Place(NamedTuple):
    """A domain with what virtualdomains prepends to its local parts."""

    domain: bytes
    """One of virtualdomains that begins with a dot, or is empty, stands for many."""
    prepend: bytes | None
    """None: a local domain."""

    @property
    def wild(self) -> bool:
        """Whether it stands for many."""
        return self.prepend is not None and self.domain[:1] in (b"", b".")

    @property
    def example(self) -> bytes:
        """One that it stands for."""
        return PROBE + (self.domain or b".invalid") if self.wild else self.domain


class Entry(NamedTuple):
    """A line of the list."""

    local: bytes
    pattern: bool
    domain: bytes
    wild: bool


class Found(NamedTuple):
    """All that was asked about."""

    entries: list[Entry]
    unknown: list[tuple[Entry, Unavailable]]
    unlisted: list[tuple[Entry, Answer]]
    """Patterns of which a plug-in judges each address by itself, and does not tell which there are; and what
    another module is to judge (CVM_QMAIL_LOOKASIDE)."""
    troubles: list[Unavailable]
    """Where candidates could not be looked for."""


# -- what is worth asking about -----------------------------------------------------------------------


class Survey:
    """The local parts that a host might know."""

    def __init__(self, tables: Tables, settings: Settings) -> None:
        self._tables = tables
        self._settings = settings
        self._names: dict[bytes, list[bytes]] = {}
        self.troubles: list[Unavailable] = []
        self.claimed: set[bytes] = set()
        """Beginnings of local parts below which a plug-in has named all that it knows."""

    def candidates(self) -> set[Candidate]:
        """All of them.  Raises `Unavailable` where none can be found at all."""
        records = host.users_cdb(self._tables, self._settings)
        found = {candidate for key, data in records or () for candidate in self._assigned(key, data)}
        if records is None or all(key != b"!" for key, _ in records):  # else the password file is never asked
            for name, account in host.accounts(self._settings).items():
                found.update(self._account(name, account))
        return found

    def _assigned(self, key: bytes, data: bytes) -> Iterator[Candidate]:
        """Those of an entry of users/cdb."""
        if not key.startswith(b"!"):
            return
        if key.endswith(b"\0"):
            yield Candidate(key[1:-1], False)
            return
        prefix = key[1:]
        yield Candidate(prefix, False)
        yield Candidate(prefix, True)
        try:
            user = users.assigned(prefix, {b"": prefix[-1:], key: data})
        except Unavailable:
            return  # the look-up will say so
        if user is not None:
            yield from self._below(prefix, user)
            yield from self._of_plugins(prefix, user)

    def _of_plugins(self, prefix: bytes, user: users.User) -> Iterator[Candidate]:
        """The names that plug-ins know below an entry of users/cdb."""
        for helper in helpers():
            try:
                named = helper.names(self._tables, self._settings, user)
            except Unavailable as trouble:
                self.troubles.append(trouble)
                continue
            if named is not None:
                self.claimed.add(prefix.lower())
                for local, pattern in named:
                    yield Candidate(prefix + local, pattern)

    def _account(self, name: bytes, account: users.Account) -> Iterator[Candidate]:
        """Those of an account; the account alias has what nobody else has as well."""
        settings = self._settings
        user = users.User(name, *account, b"-", b"")
        if name == settings.alias:
            yield from self._below(b"", user)
        yield Candidate(name, False)
        try:
            owned = account.uid and self._tables.owners().get(account.home) == account.uid
        except Unavailable as trouble:
            self.troubles.append(trouble)
            return
        if owned:
            yield from self._below(name + settings.breakchar, user)

    def _below(self, start: bytes, user: users.User) -> Iterator[Candidate]:
        """`start` with each extension that a .qmail file of `user` has."""
        ext = user.ext.lower().replace(b".", b":")
        for safe in self._extensions(user):
            if safe.startswith(ext):
                yield Candidate(start + safe[len(ext) :].replace(b":", b"."), False)
            stem = safe.removesuffix(b"default")
            if stem != safe and (not stem or stem.endswith(b"-")):
                if stem.startswith(ext):
                    yield Candidate(start + stem[len(ext) :].replace(b":", b"."), True)
                elif ext.startswith(stem):
                    yield Candidate(start, True)

    def _extensions(self, user: users.User) -> list[bytes]:
        """What follows .qmail and the dash in the names of the home, where an address can reach it."""
        if not user.home.startswith(b"/"):
            return []
        if user.home not in self._names:
            try:
                rights = Rights(user.uid, user.gid)
                self._names[user.home] = host.dotqmail_names(self._tables, user.home, rights)
            except Unavailable as trouble:
                self._names[user.home] = []
                self.troubles.append(trouble)
        start = b".qmail" + user.dash
        rests = [name[len(start) :] for name in self._names[user.home] if name.startswith(start)]
        return [rest for rest in rests if rest == rest.lower() and b"." not in rest]


def places(tables: Tables, settings: Settings) -> tuple[list[Place], list[bytes]]:
    """The domains of the control files, and the whole addresses in virtualdomains.  Raises `Unavailable`."""
    tables.controls()  # all or nothing
    found = [Place(line.value.lower(), None) for line in host.local_lines(tables, settings)]
    virtual: dict[bytes, bytes] = {}
    for line in host.control_lines(tables, settings, "virtualdomains") or ():
        name, colon, prepend = line.value.partition(b":")
        if colon:
            virtual[name.lower()] = prepend
    whole = [name for name, prepend in virtual.items() if b"@" in name and prepend]
    found += [Place(name, prepend) for name, prepend in virtual.items() if b"@" not in name and prepend]
    return list(dict.fromkeys(found)), whole


def of_domain(all_places: Iterable[Place], domain: bytes) -> list[Place]:
    """The one place that `domain` has."""
    by_name: dict[bytes, Place] = {}
    for place in all_places:
        by_name.setdefault(place.domain, place)  # locals come first
    at = 0
    name = domain
    while name not in by_name:
        at = domain.find(b".", at + 1) if at >= 0 else -1
        if at < 0 and not name:
            return []
        name = domain[at:] if at >= 0 else b""
    return [Place(domain, by_name[name].prepend)] if name == domain or by_name[name].wild else []


def at_place(candidates: Iterable[Candidate], place: Place) -> Iterator[Candidate]:
    """The candidates as addresses of this place are written: without what it prepends."""
    if place.prepend is None:
        yield from candidates
        return
    start = _alike(place.prepend.lower() + b"-")
    for local, pattern in candidates:
        if _alike(local).startswith(start):
            yield Candidate(local[len(start) :], pattern)
        elif pattern and start.startswith(_alike(local)):
            yield Candidate(b"", True)


def _alike(local: bytes) -> bytes:
    """A dot and a colon are the same in the name of a .qmail file."""
    return local.replace(b":", b".")


# -- asking -------------------------------------------------------------------------------------------


def survey(settings: Settings, domain: bytes | None = None) -> Found:
    """What would be accepted, in `domain` or everywhere.  Raises `Unavailable`."""
    host.open_tables(settings)  # drops groups
    tables = Tables(settings)
    lookup = qmail(tables, settings).lookup
    where, whole = places(tables, settings)
    if domain is not None:
        where = of_domain(where, domain)
        whole = [address for address in whole if address.rpartition(b"@")[2] == domain]
    names = Survey(tables, settings)
    candidates = names.candidates()
    found = Found([], [], [], names.troubles)
    for place in where:
        start = b"" if place.prepend is None else place.prepend + b"-"
        for local, pattern in sorted(set(at_place(candidates, place))):
            if local or pattern:  # without a local part it would be thrown away, or means the whole domain
                claimed = (start + local).lower().startswith(tuple(names.claimed))
                _ask(lookup, Entry(local, pattern, place.domain, place.wild), place.example, found, claimed=claimed)
    for address in whole:
        account, _, host_name = address.rpartition(b"@")
        _ask(lookup, Entry(account, False, host_name, False), host_name, found)
    return found


QMAILS_OWN = frozenset({"no-mailbox", "home-not-absolute"})
"""Reasons of rejections that hold for all that a pattern stands for; others are a plug-in's."""


def _ask(lookup: Lookup, entry: Entry, domain: bytes, found: Found, *, claimed: bool = False) -> None:
    try:
        answer = lookup(Recipient(entry.local + PROBE if entry.pattern else entry.local, domain))
    except Unavailable as trouble:
        found.unknown.append((entry, trouble))
        return
    if answer.verdict is Verdict.ACCEPT:
        found.entries.append(entry)
    elif answer.reason == "lookaside" or (entry.pattern and not claimed and _by_plugin(answer)):
        found.unlisted.append((entry, answer))


def _by_plugin(answer: Answer) -> bool:
    """Whether a plug-in refused: another address of the same pattern may be taken."""
    return answer.verdict is Verdict.REJECT and answer.reason not in QMAILS_OWN


# -- formats ------------------------------------------------------------------------------------------


def notation(entry: Entry) -> bytes:
    """The entry as this page writes it."""
    local, pattern, domain, wild = entry
    if pattern and local:
        local += b"default" if local.endswith(b"-") else b"*"
    return b"%s@%s%s" % (local, b"*" if wild else b"", domain)


def _printable(entry: Entry) -> bool:
    name = entry.local + entry.domain
    return name.isascii() and text(name).isprintable() and not name.startswith(b"#") and b" " not in name


def _in_validrcptto(entry: Entry) -> bool:
    dashed = not entry.pattern or not entry.local or entry.local.endswith(b"-")
    return dashed and not entry.wild and _printable(entry)


def _in_postfix(entry: Entry) -> bool:
    return not entry.wild and not (entry.pattern and entry.local) and _printable(entry)


def as_text(entries: list[Entry]) -> bytes:
    """A line an entry, odd bytes escaped."""
    return b"".join(escaped(text(notation(entry))).encode() + b"\n" for entry in entries)


def as_validrcptto(entries: list[Entry]) -> bytes:
    """The text that validrcptto.cdb is made from."""
    return b"".join(notation(entry).lower() + b"\n" for entry in entries)


def as_cdb(entries: list[Entry]) -> bytes:
    """validrcptto.cdb itself."""
    import cdblib

    out = io.BytesIO()
    with cdblib.Writer(out) as writer:
        for entry in entries:
            writer.put(notation(entry).lower(), b"")
    return out.getvalue()


def as_postfix(entries: list[Entry]) -> bytes:
    """An indexed table of Postfix."""
    return b"".join(notation(entry).lower() + b" OK\n" for entry in entries)


def as_regexp(entries: list[Entry]) -> bytes:
    """A regexp_table(5) of Postfix; it ignores case."""
    return b"".join(_regexp(entry) + b"\n" for entry in entries)


def _regexp(entry: Entry) -> bytes:
    local = _quoted(entry.local) + (b".*" if entry.pattern else b"")
    return b"/^%s@%s%s$/ OK" % (local, b".*" if entry.wild else b"", _quoted(entry.domain))


def _quoted(name: bytes) -> bytes:
    return b"".join(b"\\%c" % byte if byte in b"\\^$.[]|()?*+{}/" else b"%c" % byte for byte in name)


class Format(NamedTuple):
    """A way to write the list, and what it can hold."""

    written: Callable[[list[Entry]], bytes]
    holds: Callable[[Entry], bool]


def _always(_entry: Entry) -> bool:
    return True


FORMATS = {
    "text": Format(as_text, _always),
    "postfix": Format(as_postfix, _in_postfix),
    "validrcptto": Format(as_validrcptto, _in_validrcptto),
    "cdb": Format(as_cdb, _in_validrcptto),
}


# -- the command --------------------------------------------------------------------------------------


@click.command("list")
@click.argument("domain", required=False)
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="text", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False), help="Write this file; it appears whole or not at all."
)
@click.option(
    "--patterns",
    type=click.Path(dir_okay=False),
    help="With --format postfix: write what an indexed table cannot hold to this file, a regexp_table(5).",
)
@click.option(
    "--unknown",
    type=click.Choice(["fail", "include", "omit"]),
    default="fail",
    show_default=True,
    help="What to do with an address that cannot be told now.",
)
@click.option("--omit-inexpressible", is_flag=True, help="Leave out what the format cannot hold.")
@click.option("--allow-empty", is_flag=True, help="Write an empty list too.")
def addresses(
    *,
    domain: str | None,
    form: str,
    output: str | None,
    patterns: str | None,
    unknown: str,
    omit_inexpressible: bool,
    allow_empty: bool,
) -> None:
    """List every address that would be accepted, of all domains or of DOMAIN.

    joe-default@example.org stands for every address that begins with joe-, @example.org for a whole
    domain, joe@*.example for every domain that ends so.  Only lower case is listed, dots as dots.  Not
    listed: addresses without a local part or a domain, and those that percenthack rewrites.

    Nothing is written, and the exit status is 111, if anything cannot be told (--unknown), cannot be
    held by the format (--omit-inexpressible), or if the list is empty (--allow-empty).

    \b
      cvmctl list example.org
      cvmctl list --format cdb -o /var/qmail/control/validrcptto.cdb
    """  # noqa: D301  click knows the control character, not the backslash
    if patterns is not None and form != "postfix":
        raise click.UsageError("--patterns goes with --format postfix")
    settings = host.settings()
    if settings.assume_local or settings.missing_domain is not None:
        what = "with CVM_QMAIL_ASSUME_LOCAL or CVM_QMAIL_MISSINGDOMAIN every domain is answered for, and none is listed"
        raise Failure(what, TEMPORARY)
    host.warn_of_rights()
    found = survey(settings, None if domain is None else os.fsencode(domain).lower())
    entries = _settled(found, unknown)
    files = _split(entries, form, patterns, omit_inexpressible=omit_inexpressible)
    if not entries and not allow_empty:
        raise Failure("the list is empty: nothing is written (--allow-empty)", TEMPORARY)
    if patterns is not None:
        write(patterns, as_regexp(files[1]))
    data = FORMATS[form].written(files[0])
    if output is None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()
    else:
        write(output, data)


def _settled(found: Found, unknown: str) -> list[Entry]:
    """The entries, with those that cannot be told as `unknown` says."""
    troubles = [(trouble.where, trouble) for trouble in found.troubles]
    troubles += [(notation(entry), trouble) for entry, trouble in found.unknown]
    for name, trouble in troubles[:SAID]:
        warn(f"{text(name)}: cannot be told: {trouble.reason} {text(trouble.where)} {trouble.detail}")
    if len(troubles) > SAID:
        warn(f"and {len(troubles) - SAID} more")
    for entry, answer in found.unlisted[:SAID]:
        what = "somebody else judges each address, and does not tell which there are"
        warn(f"{text(notation(entry))}: {what} ({answer.reason})")
    if (troubles or found.unlisted) and unknown == "fail":
        raise Failure("nothing is written (--unknown include, or omit)", TEMPORARY)
    included = [entry for entry, _ in found.unknown] if unknown == "include" else []
    entries = {*found.entries, *included}
    entries -= {Entry(e.local + b"default", False, *e[2:]) for e in entries if e.pattern}  # written alike
    return sorted(entries, key=lambda entry: (entry.domain, entry.wild, entry.local, entry.pattern))


def _split(
    entries: list[Entry], form: str, patterns: str | None, *, omit_inexpressible: bool
) -> tuple[list[Entry], list[Entry]]:
    """What goes into the list, and what into the file for patterns."""
    holds = FORMATS[form].holds
    held = [entry for entry in entries if holds(entry)]
    rest = [entry for entry in entries if not holds(entry)]
    if patterns is not None:
        rest, beyond = [entry for entry in rest if _printable(entry)], [e for e in rest if not _printable(e)]
    else:
        rest, beyond = [], rest
    if beyond and not omit_inexpressible:
        how = " (--patterns FILE)" if form == "postfix" and patterns is None else ""
        raise Failure(
            f"the format {form} cannot hold {text(notation(beyond[0]))}"
            f"{f' and {len(beyond) - 1} more' if beyond[1:] else ''}{how}:"
            " nothing is written (--omit-inexpressible)",
            TEMPORARY,
        )
    return held, rest


def write(path: str, data: bytes) -> None:
    """A file that appears whole or not at all; one that is there keeps its mode."""
    mode = 0o644
    if os.path.lexists(path):
        st = os.lstat(path)
        if not S_ISREG(st.st_mode):
            raise Failure(f"{path}: found something that is no plain file, and leave it alone", PERMANENT)
        mode = st.st_mode & 0o7777
    folder = os.path.dirname(path) or "."
    fd, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
    try:
        with open(fd, "wb") as out:
            out.write(data)
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
