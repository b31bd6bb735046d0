"""The formats in which a list of addresses is written, and what each of them can express.

    joe@example.org              an address
    joe-default@example.org      every address that begins with joe-
    @example.org                 every address of the domain
    joe@*.w.example              in every domain that ends in .w.example; @* in every domain

Invariants: a format expresses an entry exactly or not at all, which is known beforehand.  Files are replaced as a
whole or not at all.

Source: validrcptto.cdb; Postfix: postmap(1), regexp_table(5).
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from stat import S_ISREG
from typing import BinaryIO, NamedTuple

from cvm_qmail.cvmctl.listing.entries import Entry
from cvm_qmail.cvmctl.ui.output import PERMANENT, TEMPORARY, Failure, escaped, text


def notation(entry: Entry) -> bytes:
    """The entry in the notation above."""
    local, pattern, domain, wild = entry
    if pattern and local:
        local += b"default" if local.endswith(b"-") else b"*"
    return b"%s@%s%s" % (local, b"*" if wild else b"", domain)


def printable(entry: Entry) -> bool:
    """Whether a line of text can express it."""
    name = entry.local + entry.domain
    return name.isascii() and text(name).isprintable() and not name.startswith(b"#") and b" " not in name


def _in_validrcptto(entry: Entry) -> bool:
    dashed = not entry.pattern or not entry.local or entry.local.endswith(b"-")
    return dashed and not entry.wild and printable(entry)


def _in_postfix(entry: Entry) -> bool:
    return not entry.wild and not (entry.pattern and entry.local) and printable(entry)


def write_text(entries: Iterable[Entry], out: BinaryIO) -> None:
    """One line per entry, with unusual bytes escaped."""
    out.writelines(escaped(text(notation(entry))).encode() + b"\n" for entry in entries)


def write_validrcptto(entries: Iterable[Entry], out: BinaryIO) -> None:
    """The text that validrcptto.cdb is made from."""
    out.writelines(notation(entry).lower() + b"\n" for entry in entries)


def write_validrcptto_cdb(entries: Iterable[Entry], out: BinaryIO) -> None:
    """validrcptto.cdb itself."""
    from cvm_qmail.cvmctl.listing.cdb_writer import write_cdb

    write_cdb(out, ((notation(entry).lower(), b"") for entry in entries))


def write_postfix(entries: Iterable[Entry], out: BinaryIO) -> None:
    """An indexed table of Postfix."""
    out.writelines(notation(entry).lower() + b" OK\n" for entry in entries)


def write_regexp(entries: Iterable[Entry], out: BinaryIO) -> None:
    """A regexp_table(5) of Postfix; it ignores case."""
    out.writelines(_regexp(entry) + b"\n" for entry in entries)


def _regexp(entry: Entry) -> bytes:
    local = _quoted(entry.local) + (b".*" if entry.pattern else b"")
    return b"/^%s@%s%s$/ OK" % (local, b".*" if entry.wild else b"", _quoted(entry.domain))


def _quoted(name: bytes) -> bytes:
    return b"".join(b"\\%c" % byte if byte in b"\\^$.[]|()?*+{}/" else b"%c" % byte for byte in name)


class Format(NamedTuple):
    """A format: how to write the list, and what it can express."""

    write: Callable[[Iterable[Entry], BinaryIO], None]
    holds: Callable[[Entry], bool]


def _always(_entry: Entry) -> bool:
    return True


FORMATS = {
    "text": Format(write_text, _always),
    "postfix": Format(write_postfix, _in_postfix),
    "validrcptto": Format(write_validrcptto, _in_validrcptto),
    "cdb": Format(write_validrcptto_cdb, _in_validrcptto),
}


def replace(path: str, write: Callable[[BinaryIO], None]) -> None:
    """Replaces a file, as a whole or not at all; `write` writes it.  An existing file keeps its mode."""
    mode = 0o644
    if os.path.lexists(path):
        st = os.lstat(path)
        if not S_ISREG(st.st_mode):
            raise Failure(f"{path}: not a regular file; left alone", PERMANENT)
        mode = st.st_mode & 0o7777
    directory = os.path.dirname(path) or "."
    try:
        fd, temporary = tempfile.mkstemp(dir=directory, prefix=f".{os.path.basename(path)}.")
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}", TEMPORARY) from None
    try:
        with open(fd, "wb") as out:
            write(out)
            os.fchmod(out.fileno(), mode)
            out.flush()
            os.fsync(out.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
