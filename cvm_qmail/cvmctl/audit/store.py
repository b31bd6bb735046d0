"""The data of an audit: addresses with the outcomes of their deliveries, and today's verdicts.

It is in a temporary SQLite database (in TMPDIR, removed at the end), because a log of gigabytes has more addresses
than should be in memory: a dictionary attack makes millions.

    address    as logged; the outcome of the last delivery; the envelope address, verdict and reason
    tally      deliveries by address, day and kind
    message    messages all of whose recipients failed here: bytes, and whether a bounce was made
    addressed  which addresses these had
    refused    of these messages, those for which every recipient would be rejected, by the first address

Invariants: memory is bounded (PENDING, and SQLite's cache); counting is exact.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cvm_qmail.answer import Verdict
from cvm_qmail.cvmctl.audit.figures import BOUNCED, DAY, FINAL, NOBODY, Day, Gain, Kind, Listed, Listing, date, kind_of
from cvm_qmail.cvmctl.audit.sendlog import Delivery, Message
from cvm_qmail.cvmctl.host.pool import Result
from cvm_qmail.cvmctl.host.rewriting import Origin
from cvm_qmail.cvmctl.host.verdicts import FAILED

PENDING = 1 << 14
"""Rows that wait in memory."""

REFUSED = Verdict.REJECTED.value
ACCEPTED = Verdict.ACCEPTED.value


_OF_BOUNCED = ", ".join("?" * len(BOUNCED))
_BOUNCED_VALUES = ", ".join(f"'{kind.value}'" for kind in BOUNCED)
"""For statements: as many question marks as `BOUNCED` has, and its values."""

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -32768;
CREATE TABLE address (
    id INTEGER PRIMARY KEY, logged BLOB NOT NULL UNIQUE, domain BLOB NOT NULL, last TEXT, last_day INTEGER,
    address BLOB, exact INTEGER, mark TEXT, reason TEXT, place BLOB, detail TEXT
);
CREATE TABLE tally (
    address INTEGER, day INTEGER, kind TEXT, count INTEGER, PRIMARY KEY (address, day, kind)
) WITHOUT ROWID;
CREATE TABLE message (id INTEGER PRIMARY KEY, size INTEGER, bounced INTEGER);
CREATE TABLE addressed (message INTEGER, address INTEGER, PRIMARY KEY (message, address)) WITHOUT ROWID;
CREATE TABLE refused (address INTEGER PRIMARY KEY, messages INTEGER, size INTEGER, bounces INTEGER);
"""
_ADD_ADDRESS = """
INSERT INTO address (logged, domain, last, last_day) VALUES (?, ?, ?, ?) ON CONFLICT (logged) DO UPDATE SET
    last = ifnull(excluded.last, last), last_day = ifnull(excluded.last_day, last_day)
"""
_ADD_REFUSED = """
INSERT INTO refused SELECT first, count(*), sum(size), sum(bounced)
FROM (
    SELECT min(addressed.address) AS first, message.size AS size, message.bounced AS bounced
    FROM message JOIN addressed ON addressed.message = message.id JOIN address ON address.id = addressed.address
    GROUP BY message.id HAVING sum(address.mark != ?) = 0
) GROUP BY first
"""
_ADD_TALLY = """
INSERT INTO tally SELECT id, ?, ?, ? FROM address WHERE logged = ?
ON CONFLICT DO UPDATE SET count = count + excluded.count
"""


class Store:
    """See the head of this file.  Raises `sqlite3.Error`, for example when the disk is full."""

    def __init__(self) -> None:
        self._db = sqlite3.connect("", isolation_level=None)
        self._db.executescript(_SCHEMA)
        self._last: dict[bytes, tuple[str | None, int | None]] = {}
        self._tallies: Counter[tuple[bytes, int, str]] = Counter()
        self._messages: list[Message] = []

    def close(self) -> None:
        """Removes the temporary database."""
        self._db.close()

    # -- what is in the log -------------------------------------------------------------------------

    def delivery(self, delivery: Delivery) -> None:
        """A local delivery."""
        kind = kind_of(delivery)
        when = delivery.began if delivery.ended is None else delivery.ended
        day = None if when is None else when // DAY
        if kind in FINAL:
            self._last[delivery.recipient] = kind.value, day
        else:
            self._last.setdefault(delivery.recipient, (None, None))
        self._tallies[delivery.recipient, -1 if day is None else day, kind.value] += 1
        if len(self._tallies) >= PENDING:
            self.flush()

    def message(self, message: Message) -> None:
        """A message whose end is in the log."""
        if message.ended and message.failed:
            self._messages.append(message)
            if len(self._messages) >= PENDING:
                self.flush()

    def flush(self) -> None:
        """Writes the rows that wait in memory."""
        self._db.execute("BEGIN")
        self._db.executemany(
            _ADD_ADDRESS,
            [(name, name.rpartition(b"@")[2].lower(), last, day) for name, (last, day) in self._last.items()],
        )
        self._db.executemany(
            _ADD_TALLY, [(day, kind, count, name) for (name, day, kind), count in self._tallies.items()]
        )
        self._last.clear()
        self._tallies.clear()
        for message in self._messages:
            row = self._db.execute(
                "INSERT INTO message (size, bounced) VALUES (?, ?)", (message.size, message.bounce_qp is not None)
            ).lastrowid
            self._db.executemany(
                "INSERT OR IGNORE INTO addressed SELECT ?, id FROM address WHERE logged = ?",
                [(row, name) for name in message.failed],
            )
        self._messages.clear()
        self._db.execute("COMMIT")

    # -- today's verdicts ---------------------------------------------------------------------------

    @property
    def addresses(self) -> int:
        """The number of addresses."""
        return self._number("SELECT count(*) FROM address")

    def logged(self) -> Iterator[bytes]:
        """All of them."""
        last = 0
        while rows := self._db.execute(
            "SELECT id, logged FROM address WHERE id > ? ORDER BY id LIMIT 1000", (last,)
        ).fetchall():
            yield from (name for _, name in rows)
            last = rows[-1][0]

    def judge(self, verdicts: Iterable[Result]) -> Iterator[Result]:
        """Stores the verdicts, and passes them on."""
        waiting = []
        for result in verdicts:
            exact = Origin(result.address).exact
            waiting.append(
                (result.address, exact, result.mark, result.reason, result.where, result.detail, result.asked)
            )
            if len(waiting) >= PENDING:
                self._keep(waiting)
                waiting = []
            yield result
        self._keep(waiting)
        self._db.execute(_ADD_REFUSED, (REFUSED,))

    def _keep(self, rows: Sequence[tuple[object, ...]]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(
            "UPDATE address SET address = ?, exact = ?, mark = ?, reason = ?, place = ?, detail = ? WHERE logged = ?",
            rows,
        )
        self._db.execute("COMMIT")

    # -- what follows -------------------------------------------------------------------------------

    def refused_though_delivered(self, limit: int, *, exact: bool) -> Listing:
        """Addresses that would be rejected, and whose last delivery succeeded.

        Not `exact`: the log may mean others.
        """
        condition = "mark = ? AND last = ? AND exact = ?"
        return self._listing(condition, (REFUSED, Kind.DELIVERED.value, exact), (Kind.DELIVERED,), limit)

    def gone(self) -> int:
        """Addresses that would be rejected, to which qmail delivered in the past, and which it has bounced since."""
        return self._number(
            f"SELECT count(*) FROM address WHERE mark = ? AND last IN ({_OF_BOUNCED})"  # noqa: S608  constants and "?"
            " AND EXISTS (SELECT 1 FROM tally WHERE tally.address = id AND kind = ?)",
            (REFUSED, *(kind.value for kind in BOUNCED), Kind.DELIVERED.value),
        )

    def accepted_though_bounced(self, limit: int) -> Listing:
        """Addresses that would be accepted, and for which qmail last found no mailbox."""
        return self._listing("mark = ? AND last = ?", (ACCEPTED, Kind.NO_MAILBOX.value), (Kind.NO_MAILBOX,), limit)

    def temporary_failures(self, limit: int) -> Listing:
        """Addresses without a verdict."""
        return self._listing("mark = ?", (FAILED,), tuple(Kind), limit)

    def forwarded_to_nobody(self, limit: int) -> Listing:
        """Addresses to which qmail delivered, only to forward the mail to addresses that would be rejected."""
        return self._listing("reason = ?", (NOBODY,), (Kind.DELIVERED,), limit)

    def names(self, limit: int) -> Listing:
        """Addresses that would have been rejected, those that bounced most often first."""
        return self._listing("mark = ?", (REFUSED,), BOUNCED, limit)

    def _listing(self, condition: str, values: tuple[object, ...], kinds: tuple[Kind, ...], limit: int) -> Listing:
        marks = ", ".join("?" * len(kinds))
        chosen = f"FROM address JOIN tally ON tally.address = id WHERE {condition} AND kind IN ({marks}) GROUP BY id"
        given = (*values, *(kind.value for kind in kinds))
        rows = self._db.execute(
            f"SELECT address.address, exact, logged, reason, place, detail, sum(count) AS total, last_day {chosen}"
            " ORDER BY total DESC, logged LIMIT ?",
            (*given, limit),
        )
        first = [
            Listed(address or logged, bool(exact), reason, place, detail, total, date(day))
            for address, exact, logged, reason, place, detail, total, day in rows
        ]
        return Listing(self._number(f"SELECT count(*) FROM (SELECT id {chosen})", given), first)  # noqa: S608  constants and "?" only

    def gain(self) -> Gain:
        """All mail that would have been rejected at RCPT."""
        return next(self._gains("", "''", ()), Gain(b"", 0, 0, 0, 0, 0))

    def domains(self, limit: int) -> list[Gain]:
        """The same by domain, those with most deliveries first."""
        return list(self._gains("GROUP BY domain ORDER BY deliveries DESC, domain LIMIT ?", "domain", (limit,)))

    def _gains(self, grouped: str, domain: str, values: tuple[object, ...]) -> Iterator[Gain]:
        rows = self._db.execute(
            f"""
            SELECT {domain}, sum(deliveries) AS deliveries, count(*), ifnull(sum(messages), 0), ifnull(sum(size), 0),
                ifnull(sum(bounces), 0)
            FROM (
                SELECT id, domain, sum(count) AS deliveries FROM address JOIN tally ON tally.address = id
                WHERE mark = ? AND kind IN ({_OF_BOUNCED}) GROUP BY id
            ) LEFT JOIN refused ON address = id {grouped}
            """,  # noqa: S608  as above
            (REFUSED, *(kind.value for kind in BOUNCED), *values),
        )
        for name, deliveries, *numbers in rows:
            if deliveries:
                yield Gain(name or b"", deliveries, *numbers)

    def days(self) -> Iterator[Day]:
        """The days in order; deliveries without a time are left out."""
        rows = self._db.execute(
            f"""
            SELECT day, sum(count * (kind = ?1)), sum(count * bounced * (mark = ?2)),
                sum(count * bounced * (mark != ?2)), sum(count * (kind = ?3))
            FROM (SELECT *, kind IN ({_BOUNCED_VALUES}) AS bounced FROM tally)
                AS tallied JOIN address ON address.id = tallied.address WHERE day >= 0 GROUP BY day ORDER BY day
            """,  # noqa: S608  constants
            (Kind.DELIVERED.value, REFUSED, Kind.DEFERRED.value),
        )
        for day, *numbers in rows:
            yield Day(date(day), *numbers)

    def matrix(self) -> dict[tuple[str, str], int]:
        """Deliveries by `Kind` and verdict."""
        rows = self._db.execute(
            "SELECT kind, mark, sum(count) FROM tally JOIN address ON address.id = tally.address GROUP BY kind, mark"
        )
        return {(kind, mark): count for kind, mark, count in rows}

    def _number(self, query: str, values: tuple[object, ...] = ()) -> int:
        number: int = self._db.execute(query, values).fetchone()[0]
        return number
