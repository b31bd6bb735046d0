"""Forms in which a list of addresses is written, and what each of them can hold.

    joe@example.org              an address
    joe-default@example.org      every address that begins with joe-
    @example.org                 every address of the domain
    joe@*.w.example              in every domain that ends in .w.example; @* in every domain

Law: a form holds an entry exactly or not at all, and says so beforehand.  Files appear whole or not at all.

Source: validrcptto.cdb; Postfix: postmap(1), regexp_table(5).
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable
from stat import S_ISREG
from typing import NamedTuple

from cvm_qmail.tool.show import PERMANENT, TEMPORARY, Failure, escaped, text
from cvm_qmail.tool.survey import Entry


def notation(entry: Entry) -> bytes:
    """The entry as this page writes it."""
    local, pattern, domain, wild = entry
    if pattern and local:
        local += b"default" if local.endswith(b"-") else b"*"
    return b"%s@%s%s" % (local, b"*" if wild else b"", domain)


def printable(entry: Entry) -> bool:
    """Whether a line of text can hold it."""
    name = entry.local + entry.domain
    return name.isascii() and text(name).isprintable() and not name.startswith(b"#") and b" " not in name


def _in_validrcptto(entry: Entry) -> bool:
    dashed = not entry.pattern or not entry.local or entry.local.endswith(b"-")
    return dashed and not entry.wild and printable(entry)


def _in_postfix(entry: Entry) -> bool:
    return not entry.wild and not (entry.pattern and entry.local) and printable(entry)


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


def write(path: str, data: bytes) -> None:
    """A file that appears whole or not at all; one that is there keeps its mode."""
    mode = 0o644
    if os.path.lexists(path):
        st = os.lstat(path)
        if not S_ISREG(st.st_mode):
            raise Failure(f"{path}: found something that is no plain file, and leave it alone", PERMANENT)
        mode = st.st_mode & 0o7777
    folder = os.path.dirname(path) or "."
    try:
        fd, temporary = tempfile.mkstemp(dir=folder, prefix=f".{os.path.basename(path)}.")
    except OSError as error:
        raise Failure(f"{path}: cannot be written: {error.strerror}", TEMPORARY) from None
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
