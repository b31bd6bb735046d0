"""What an audit counts: kinds of deliveries, addresses, mail that would have been rejected, days."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import NamedTuple

from cvm_qmail.cvmctl.audit.sendlog import Delivery, Outcome
from cvm_qmail.reasons import Rejection

DAY = 86400
"""Seconds."""


class Kind(Enum):
    """The outcome of a local delivery."""

    DELIVERED = "delivered"
    NO_MAILBOX = "bounced: no mailbox"
    FULL = "bounced: mailbox full"
    DISABLED = "bounced: mailbox disabled"
    FAILED = "bounced: otherwise"
    DEFERRED = "deferred"
    UNFINISHED = "without an end"


BOUNCED = (Kind.NO_MAILBOX, Kind.FULL, Kind.DISABLED, Kind.FAILED)
FINAL = (Kind.DELIVERED, *BOUNCED)

_BOUNCES = {Rejection.MISSING: Kind.NO_MAILBOX, Rejection.FULL: Kind.FULL, Rejection.DISABLED: Kind.DISABLED}

_KINDS = {
    Outcome.SUCCESS: Kind.DELIVERED,
    Outcome.FAILURE: Kind.FAILED,
    Outcome.DEFERRAL: Kind.DEFERRED,
    Outcome.UNFINISHED: Kind.UNFINISHED,
}

NOBODY = "forwards-to-nobody"
"""The reason word for addresses that are only forwarded, to addresses that would be rejected."""


class Listed(NamedTuple):
    """An address in the report."""

    address: bytes
    """The envelope address if it is known, else the logged one."""
    exact: bool
    """Whether the logged form can only mean this address."""
    reason: str
    where: bytes
    detail: str
    deliveries: int
    last_day: str
    """The day of the last delivery that succeeded or failed; empty: there is none, or it has no time."""


class Listing(NamedTuple):
    """Addresses of one kind: their number, and the first of them."""

    total: int
    first: list[Listed]


class Gain(NamedTuple):
    """The mail that would have been rejected."""

    domain: bytes
    deliveries: int
    addresses: int
    messages: int
    """Messages whose recipients would all have been rejected; each is counted in the domain of its first recipient."""
    size: int
    bounces: int


class Day(NamedTuple):
    """Deliveries of one day that were..."""

    day: str
    delivered: int
    refused: int
    """...bounced, and would be rejected."""
    bounced: int
    """...bounced otherwise."""
    deferred: int


def date(day: int | None) -> str:
    """A day (counted from 1970) as a date; empty for none."""
    return "" if day is None or day < 0 else datetime.fromtimestamp(day * DAY, UTC).strftime("%Y-%m-%d")


def kind_of(delivery: Delivery) -> Kind:
    """The kind of a delivery."""
    bounce = delivery.bounce
    return _KINDS[delivery.outcome] if bounce is None else _BOUNCES[bounce]
