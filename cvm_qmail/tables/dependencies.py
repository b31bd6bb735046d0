"""What the answer to one request depends on.

Invariants: one `Request` for each request, made by `Tables.request`.  All code that reads a file or a database
records here what it read; if that cannot be described, the answer cannot be cached.  Recording is cheap: identities
are worked out in `dependencies`, which most requests never call, since an answer is cached only when its request
comes for the second time.
"""

import math
import os
import time
from collections.abc import Callable
from typing import NamedTuple

from cvm_qmail.tables.identity import Identity, identity, is_settled


class Recheck(NamedTuple):
    """A question that can be asked again, to a database for example."""

    resource: bytes
    """The resource that it uses, for the hang guard."""
    holds: Callable[[], bool]
    """Whether the answer is unchanged.  May raise `Unavailable`."""


class Dependencies(NamedTuple):
    """What an answer depends on, as far as it has to be checked again."""

    stamp: int
    """The stamp of the watch, which sees every change of what it covers."""
    files: tuple[tuple[bytes, Identity], ...]
    """Files and directories on local file systems."""
    until: float = math.inf
    """The moment, by time.monotonic, when the answer expires."""
    rechecks: tuple[Recheck, ...] = ()


class Request:
    """The current request."""

    _until = math.inf
    _rechecks: tuple[Recheck, ...] = ()

    def __init__(
        self,
        began: float,
        stamp: Callable[[], int],
        before_risk: Callable[[], None] = lambda: None,
        *,
        cacheable: bool = True,
    ) -> None:
        """`began`: now, by time.monotonic.  `stamp`: that of the watch.

        `before_risk` is called before the lookup reads a path where it may hang.  `cacheable`: whether the
        dependencies will be used; if not, they are not recorded.
        """
        self.began = began
        """Seconds, by time.monotonic.  The deadlines of all waits are counted from it."""
        self._stamp = stamp
        self._before_risk = before_risk
        self._seen: list[tuple[bytes, os.stat_result]] = []
        self._cacheable = cacheable

    def depend_on(self, path: bytes, st: os.stat_result) -> None:
        """The answer depends on this file or directory being the same; `st` is from lstat(2) or fstat(2)."""
        if self._cacheable:
            self._seen.append((path, st))

    def valid_until(self, moment: float) -> None:
        """The answer expires at this moment, by time.monotonic."""
        self._until = min(self._until, moment)

    def recheck_with(self, resource: bytes, check: Callable[[], bool]) -> None:
        """The answer is valid while `check` returns True; it may raise `Unavailable`, and may hang at `resource`."""
        self._rechecks += (Recheck(resource, check),)

    def not_cacheable(self) -> None:
        """The answer depends on something that cannot be checked later, and that may take long to read."""
        self._cacheable = False
        self._before_risk()

    @property
    def cacheable(self) -> bool:
        """Whether everything so far can be checked later."""
        return self._cacheable

    def dependencies(self) -> Dependencies | None:
        """What the answer depends on; None if some of it cannot be checked later.

        A file that changed less than two seconds ago may change again without a trace in its times.
        """
        if not self._cacheable:
            return None
        now = time.time_ns()
        files: dict[bytes, Identity] = {}
        for path, st in self._seen:
            if not is_settled(st, now):
                return None
            files[path] = identity(st)
        return Dependencies(self._stamp(), tuple(files.items()), self._until, self._rechecks)
