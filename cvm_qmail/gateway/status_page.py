"""The status page: a single page for a browser, which loads nothing else.

Invariants: read-only.  It loads nothing and has no script, and the content security policy allows none.  The only
style is the sheet whose hash is in the policy.  Every name is a text (`markup`), and was made printable before.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from hashlib import sha256
from importlib.resources import files
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from cvm_qmail import __version__
from cvm_qmail.escape import escape_text, escape_unprintable
from cvm_qmail.gateway import charts
from cvm_qmail.gateway import status_tables as tables
from cvm_qmail.gateway.charts import Column
from cvm_qmail.gateway.markup import Markup, document, element, joined, style, void
from cvm_qmail.gateway.quantities import NOTHING, clock, count, duration, milliseconds, percent, rate
from cvm_qmail.gateway.statistics import Snapshot
from cvm_qmail.gateway.status_tables import OUTCOMES, marked
from cvm_qmail.process import sandbox
from cvm_qmail.protocols.address import recipient
from cvm_qmail.protocols.http import Response
from cvm_qmail.protocols.question import Question
from cvm_qmail.protocols.result import Result, smtp_reply, word
from cvm_qmail.reasons import reason_of

EVERY = 5
"""Seconds between two updates, if the reader has asked for them."""

RECENT = 60
"""Seconds that the figures at the top cover."""

_SHEET = files("cvm_qmail.gateway").joinpath("status.css").read_text("utf-8")
_HASH = b64encode(sha256(_SHEET.encode()).digest()).decode()

HEADERS = (
    (
        "Content-Security-Policy",
        f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("Referrer-Policy", "no-referrer"),
    ("X-Frame-Options", "DENY"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
)


class Asked(NamedTuple):
    """The reader's choices: an address, and automatic updates."""

    question: Question | None
    """None: no address."""
    again: bool
    """Whether the page reloads itself."""


class Said(NamedTuple):
    """A question with its result."""

    question: Question
    result: Result


def asked_for(query: bytes) -> Asked:
    """The choices in the query of a request."""
    given = {}
    for pair in query.split(b"&"):
        name, _, value = pair.partition(b"=")
        given[name] = unquote_to_bytes(value.replace(b"+", b" ")).strip()
    address = given.get(b"address")
    return Asked(Question(recipient(address)) if address else None, b"again" in given and not address)


def page(snapshot: Snapshot, said: Said | None, *, again: bool) -> Response:
    """The page; `again`: it reloads itself after `EVERY` seconds."""
    body = document(
        element(
            "head",
            void("meta", charset="utf-8"),
            void("meta", name="viewport", content="width=device-width, initial-scale=1"),
            element("title", "cvm-gateway"),
            style(_SHEET),
        ),
        element("body", _header(snapshot, again=again), element("main", *_sections(snapshot, said))),
    )
    headers = (*HEADERS, ("Refresh", str(EVERY))) if again else HEADERS
    return Response(200, body, "text/html; charset=utf-8", headers)


def _sections(snapshot: Snapshot, said: Said | None) -> Iterable[Markup]:
    drawn = charts.columns(snapshot.seconds, snapshot.now)
    yield element("section", _figures(snapshot, drawn))
    yield element("section", *_box(said))
    yield element("div", _rates(drawn), _latency(drawn), class_="grid")
    yield element("section", *tables.backends(snapshot))
    lists = (tables.outcomes(snapshot), tables.reasons(snapshot), tables.domains(snapshot), tables.throttled(snapshot))
    yield element("div", *(element("section", *part) for part in lists), class_="grid")


# -- the top ------------------------------------------------------------------------------------------


def _header(snapshot: Snapshot, *, again: bool) -> Markup:
    facts = f"{__version__}, running for {duration(snapshot.now - snapshot.started)}; {clock(snapshot.now)}"
    confined = sandbox.described(snapshot.process["about"]["sandbox"])
    process = f"process {snapshot.process['pid']}, sandbox: {confined}"
    link = (
        element("a", "stop updating", href="/") if again else element("a", f"update every {EVERY} s", href="/?again=1")
    )
    return element(
        "header", element("h1", "cvm-gateway"), element("p", facts), element("p", process), element("p", link)
    )


def _figures(snapshot: Snapshot, drawn: list[Column]) -> Markup:
    whole = min(RECENT, max(charts.WIDTH, int(snapshot.now - snapshot.started)))
    recent = drawn[-(whole // charts.WIDTH) :]
    answers = sum(column.rate for column in recent)
    spent = sum(column.latency * column.rate for column in recent)
    failed = sum(column.rates.get("temporary_failure", 0.0) for column in recent)
    figures = (
        (rate(answers / len(recent)), "requests a second"),
        (milliseconds(spent / answers) if answers else NOTHING, "to an answer, mean"),
        (percent(failed, answers) if answers else NOTHING, "temporary failures"),
        (count(snapshot.connections), "connections now"),
    )
    parts = [element("div", element("b", value), element("small", meaning)) for value, meaning in figures]
    return joined(element("h2", "The last minute"), element("div", *parts, class_="figures"))


def _box(said: Said | None) -> Iterable[Markup]:
    # An address that is not plain text would be a different one when the form is sent again.
    written = "" if said is None else said.question.recipient.address.decode("utf-8", "replace")
    shown = written if escape_unprintable(written) == written else ""
    yield element(
        "form",
        element("label", "Ask about an address", for_="address"),
        void("input", id="address", name="address", value=shown, autocomplete="off", spellcheck="false"),
        element("button", "Ask"),
        method="get",
        action="/",
    )
    if said is not None:
        yield _answer(said.question, said.result)


def _answer(question: Question, result: Result) -> Markup:
    row = reason_of(result.reason, result.outcome)
    address = escape_unprintable(question.recipient.address.decode("utf-8", "surrogateescape"))
    verdict = word(result.outcome)
    lines = (
        ("address", element("code", address)),
        ("verdict", marked(verdict, verdict.replace("_", " "))),
        ("reason", joined(element("code", escape_text(result.reason) or NOTHING), f": {row.meaning}" if row else "")),
        ("remedy", (row.advice if row else "") or NOTHING),
        ("SMTP reply", element("code", str(smtp_reply(result)))),
    )
    return element("dl", *(joined(element("dt", name), element("dd", value)) for name, value in lines))


# -- the last minutes ---------------------------------------------------------------------------------


def _rates(drawn: list[Column]) -> Markup:
    peak = max(column.rate for column in drawn)
    said = f"Requests a second in the last 5 minutes, at most {rate(peak)}"
    picture = charts.of_rates(drawn, OUTCOMES, said)
    return _chart("Requests a second", f"peak {rate(peak)}", picture, OUTCOMES)


def _latency(drawn: list[Column]) -> Markup:
    peak = max(column.longest for column in drawn)
    said = f"Time to an answer in the last 5 minutes, at most {milliseconds(peak)}"
    picture = charts.of_latency(drawn, said)
    return _chart("Time to an answer", f"longest {milliseconds(peak)}", picture, ("mean", "longest"))


def _chart(title: str, peak: str, picture: Markup, kinds: tuple[str, ...]) -> Markup:
    key = [marked(kind, kind.replace("_", " ")) for kind in kinds]
    return element(
        "section",
        element("h2", title),
        element("p", element("span", peak), class_="axis"),
        picture,
        element("p", element("span", "5 min ago"), element("span", "now"), class_="axis"),
        element("p", *key, class_="key"),
    )
