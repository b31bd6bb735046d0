"""qmail's control files.

    me, envnoathost                      the first line, without trailing blanks
    locals, percenthack, virtualdomains  one entry per line, without trailing blanks; ``#`` first: a comment

Invariants: all or nothing.  One unreadable file, or locals and me both missing, and qmail-send does not
run: then nothing is known about any address.  A NUL in a kept line ends one entry and starts the
next.  Names are kept in lower case; of virtualdomains entries with the same name the last is used.  qmail-send reads
them as the user qmails; so does this module, if it may and there is one.

Source: qmail-control(5), control.c, constmap.c, qmail-send.c (getcontrols).
"""

from __future__ import annotations

from cvm_qmail.answer import Unavailable
from cvm_qmail.rules.domains import Controls
from cvm_qmail.tables.cached_file import CachedFile, content
from cvm_qmail.tables.calls import Open
from cvm_qmail.tables.watch import Watch

NAMES = ("me", "envnoathost", "locals", "percenthack", "virtualdomains")
"""In the order of `parse`'s arguments."""


def one_line(text: bytes) -> bytes:
    """The value of a one-line file (control.c, control_readline)."""
    return text.partition(b"\n")[0].rstrip(b" \t")


def entries(text: bytes) -> list[bytes]:
    """The entries of a many-line file, as they are written (control.c, control_readfile; constmap.c)."""
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
    """Parses the contents of the control files as qmail-send does; None: missing.  Raises `Unavailable`."""
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

    def __init__(self, directory: bytes, opener: Open | None, watch: Watch) -> None:
        paths = [b"%s/%s" % (directory, name.encode()) for name in NAMES]
        self.files = [CachedFile(path, "control", content, opener, watch) for path in paths]
        self._watch = watch
        self._stamp = -1
        self._contents: list[bytes | None] = []
        self._controls: Controls | None = None

    @property
    def watched(self) -> bool:
        """Whether `Watch` covers all of them while its stamp stays."""
        return self._stamp == self._watch.stamp

    def now(self) -> Controls:
        """The control files as they are now.  Raises `Unavailable` if qmail-send could not start with them."""
        if self._controls is not None and self._stamp == self._watch.stamp:
            return self._controls
        contents = [file.now() for file in self.files]
        if self._controls is None or any(new is not old for new, old in zip(contents, self._contents, strict=True)):
            self._controls = None
            self._controls = parse(*contents)
            self._contents = contents
        self._stamp = self._watch.stamp if all(file.watched for file in self.files) else -1
        return self._controls
