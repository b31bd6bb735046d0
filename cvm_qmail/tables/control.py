"""qmail's control files.

    me, envnoathost                      the first line, without trailing blanks
    locals, percenthack, virtualdomains  a line an entry, without trailing blanks; ``#`` first: a comment

Law: all or nothing.  One unreadable file, or locals and me both missing, and qmail-send does not
run: then nothing can be told of any address.  A NUL in a kept line ends one entry and starts the
next.  Names are kept in lower case; of virtualdomains entries with one name the last counts.
qmail-send reads as the user qmails; so do we, when we may and there is one.

Source: qmail-control(5), control.c, constmap.c, qmail-send.c (getcontrols).
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.domains import Controls
from cvm_qmail.tables.changes import Changes
from cvm_qmail.tables.kept import Kept, Open, content

NAMES = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
"""In the order of `parse`'s arguments."""


def one_line(text: bytes) -> bytes:
    """The value of a one-line file."""
    return text.partition(b"\n")[0].rstrip(b" \t\n")


def entries(text: bytes) -> list[bytes]:
    """The entries of a many-line file."""
    found = []
    for raw in text.split(b"\n"):
        line = raw.rstrip(b" \t")
        if line and line[0] not in b"\0#":
            if 0 in line:
                found += line.split(b"\0")
            else:
                found.append(line)
    return found


def parse(
    me: bytes | None,
    envnoathost: bytes | None,
    locals_: bytes | None,
    percenthack: bytes | None,
    virtualdomains: bytes | None,
) -> Controls:
    """What qmail-send makes of the contents of its control files; None: missing.  Raises `Unavailable`."""
    if locals_ is not None:
        local_names = entries(locals_)
    elif me is not None:
        local_names = one_line(me).split(b"\0")
    else:
        raise Unavailable("control", "neither control/me nor control/locals is there", b"control/locals")
    if envnoathost is None:
        envnoathost = b"envnoathost" if me is None else me
    pairs = [entry.partition(b":") for entry in entries(virtualdomains or b"")]
    return Controls(
        envnoathost=one_line(envnoathost),
        locals=dict.fromkeys(map(bytes.lower, local_names), True),
        percenthack=dict.fromkeys(map(bytes.lower, entries(percenthack or b"")), True),
        virtualdomains={name.lower(): prepend for name, colon, prepend in pairs if colon},
    )


class ControlFiles:
    """The control files below one qmail home."""

    def __init__(self, folder: bytes, opener: Open | None, changes: Changes) -> None:
        paths = [b"%s/%s" % (folder, name.encode()) for name in NAMES]
        self.files = [Kept(path, "control", content, opener, changes) for path in paths]
        self._changes = changes
        self._stamp = -1
        self._contents: list[bytes | None] = []
        self._controls: Controls | None = None

    @property
    def vouched(self) -> bool:
        """Whether `Changes` vouches for all of them while its stamp stays."""
        return self._stamp == self._changes.stamp

    def now(self) -> Controls:
        """The control files as they are now.  Raises `Unavailable` if qmail-send could not start with them."""
        if self._controls is not None and self._stamp == self._changes.stamp:
            return self._controls
        contents = [file.now() for file in self.files]
        if self._controls is None or any(new is not old for new, old in zip(contents, self._contents, strict=True)):
            self._controls = None
            self._controls = parse(*contents)
            self._contents = contents
        self._stamp = self._changes.stamp if all(file.vouched for file in self.files) else -1
        return self._controls
