"""cvmctl trace: the whole way of an address, as qmail goes it.

Law: the explanation is that of the look-up itself (explain.py).  It is made in a child, so that a home
on a dead file server costs the deadline of a look-up and no more, as in the server.  With --server
the response that a server would give for this very answer is compared with the one that it gives.

Exit status: 0 all accepted, or not ours; 1 one was refused, or the server says otherwise; 111 one could
not be told.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import time
from typing import Any, NoReturn

import click

from cvm_qmail import client, wire
from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.log import unforeseen
from cvm_qmail.lookups import ModuleFactory
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Tables
from cvm_qmail.tool import explain, host, show
from cvm_qmail.tool.given import module_named, recipient_of
from cvm_qmail.tool.remedies import remedies
from cvm_qmail.tool.show import SOME, TEMPORARY, Node, text
from cvm_qmail.wire import Fact

Report = dict[str, Any]
"""What is told of one address; what --json prints."""

_STYLES = {"accept": "yes", "reject": "no", "pass": "pass", "unavailable": "trouble"}


@click.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--server", metavar="MODULE", help="Ask this running server too, and point out a difference.")
@click.option("--module", "name", metavar="NAME", default="cvm-qmail", help="The installed module to explain.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each address.")
@click.pass_context
def trace(
    context: click.Context, /, addresses: tuple[str, ...], *, server: str | None, name: str, as_json: bool
) -> None:
    """Explain how qmail treats each ADDRESS, step by step.

    Shown are the control-file lines, each entry of users/cdb and of the password file that is tried, the
    controlling user, each .qmail name that is tried, the verdict with its reason word (as in the
    server's log), what an SMTP client would see, and what to do about it.  The settings are those of the
    server: give it the server's environment.

    The exit status is 1 if an address is refused or the server says otherwise, 111 if one could not be
    told, else 0.

    \b
      cvmctl trace joe-list@example.org
      chpst -e /etc/sv/cvm-rcptto/env cvmctl trace --server cvm-local:/run/cvm-rcptto/socket joe@example.org
    """  # noqa: D301  click knows the control character, not the backslash
    settings = host.settings()
    host.warn_of_rights()
    factory = module_named(name)
    factory(Tables(settings), settings)  # what is wrong with a plug-in or its settings is said now
    statuses = set()
    for address in addresses:
        report = in_time(recipient_of(os.fsencode(address)), settings, factory, name)
        if server is not None:
            report["server"] = compared(report, server, settings)
        statuses.add(_status(report))
        if as_json:
            show.json_line(report)
        else:
            show.tree([node(report)])
    context.exit(max(statuses))


def _status(report: Report) -> int:
    server = report.get("server")
    if report["verdict"] == "unavailable" or (server is not None and server["code"] is None):
        return TEMPORARY
    return SOME if report["verdict"] == "reject" or (server is not None and server["differs"]) else 0


# -- in time ------------------------------------------------------------------------------------------


def in_time(recipient: Recipient, settings: Settings, factory: ModuleFactory, module: str = "cvm-qmail") -> Report:
    """The report on one address; a look-up that hangs is left behind."""
    sys.stdout.flush()
    ready, result = os.pipe()
    child = os.fork()
    if not child:
        os.close(ready)
        _tell(result, recipient, settings, factory, module)
    os.close(result)
    data, ended = _read(ready, settings.lookup_timeout)
    if ended:
        os.waitpid(child, 0)
        what = "died"
    else:
        os.kill(child, signal.SIGKILL)  # it may be beyond reach for a while; nobody waits for it
        what = f"took longer than {settings.lookup_timeout:g} seconds"
    *reports, _ = data.split(b"\n")
    if not reports:
        return late(recipient, module, what)
    report: Report = json.loads(reports[-1])
    if len(reports) < PARTS:
        report["remedies"].append(f"(the explanation is missing: it {what})")
    return report


PARTS = 2
"""Reports that a child makes: the verdict, then all of it.  Trouble with the second must not hide the first."""


def _tell(result: int, recipient: Recipient, settings: Settings, factory: ModuleFactory, module: str) -> NoReturn:
    """The child: writes its reports, and ends."""
    try:
        with open(result, "wb") as out:
            case = explain.look_up(recipient, settings, factory)
            for report in (short(case, module), full(case, module)):
                out.write(json.dumps(report).encode() + b"\n")
                out.flush()
    finally:
        if sys.exc_info()[0] is not None:
            show.warn(f"a fault in the explanation, please report it: {unforeseen()}")
        os._exit(0)


def _read(fd: int, seconds: float) -> tuple[bytes, bool]:
    """All that comes in time, and whether that was the end."""
    end = time.monotonic() + seconds
    parts: list[bytes] = []
    with open(fd, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            data = pipe.read(1 << 16)
            if not data:
                return b"".join(parts), True
            parts.append(data)
    return b"".join(parts), False


def late(recipient: Recipient, module: str, what: str) -> Report:
    """The report on a look-up without an end."""
    return _head(recipient, module) | {
        "verdict": "unavailable",
        "text": f"cannot be told now: the look-up {what}",
        "reason": None,
        "where": None,
        "user": None,
        "detail": None,
        "code": int(wire.Code.IO),
        "facts": {},
        "smtp": explain.SMTP_TROUBLE,
    }


# -- the report ---------------------------------------------------------------------------------------


def _head(recipient: Recipient, module: str) -> Report:
    return {
        "address": text(recipient.address),
        "account": text(recipient.account),
        "domain": None if recipient.domain is None else text(recipient.domain),
        "module": module,
        "stages": [],
        "remedies": [],
    }


def short(case: explain.Case, module: str) -> Report:
    """The verdict."""
    outcome = case.outcome
    return _head(case.recipient, module) | {
        "verdict": "unavailable" if isinstance(outcome, Unavailable) else outcome.verdict.name.lower(),
        "text": explain.verdict(outcome),
        "reason": outcome.reason,
        "where": text(outcome.where) or None,
        "user": text(outcome.user) or None,
        "detail": (outcome.detail or None) if isinstance(outcome, Unavailable) else None,
        "code": case.response.code,
        "facts": facts(case.response),
        "smtp": explain.smtp(case),
    }


def full(case: explain.Case, module: str) -> Report:
    """The verdict, how it came about, and what to do."""
    steps = [{"name": stage.name, "steps": [step._asdict() for step in stage.steps]} for stage in explain.stages(case)]
    return short(case, module) | {"stages": steps, "remedies": remedies(case)}


def facts(response: wire.Response) -> dict[str, str]:
    """The facts of a response by name."""
    names = {int(fact): fact.name.lower() for fact in Fact}
    return {names.get(number, str(number)): text(value) for number, value in response.facts}


def node(report: Report) -> Node:
    """The report as a tree."""
    stages = [
        Node(stage["name"], "title", [Node(step["text"], "" if step["found"] else "dim") for step in stage["steps"]])
        for stage in report["stages"]
    ]
    ends = [
        Node(report["text"], _STYLES[report["verdict"]]),
        Node(f"SMTP: {report['smtp']}"),
        *(Node(f"remedy: {remedy}", "remedy") for remedy in report["remedies"]),
    ]
    server = report.get("server")
    if server is not None:
        ends.append(Node(server["text"], "trouble" if server["differs"] or server["code"] is None else ""))
    return Node(report["address"], "title", [*stages, *ends])


# -- the running server -------------------------------------------------------------------------------


def compared(report: Report, server: str, settings: Settings) -> Report:
    """What the running server says of the same address, and whether it is the same."""
    domain = report["domain"]
    try:
        response = client.ask(
            server,
            as_bytes(report["account"]),
            None if domain is None else as_bytes(domain),
            secret=settings.lookup_secret or None,
        )
    except client.NoAnswer as trouble:
        return {"module": server, "code": None, "facts": {}, "differs": False, "text": f"no answer: {trouble}"}
    except ValueError as bad:
        raise click.BadParameter(str(bad)) from None
    except wire.Malformed as bad:
        return {
            "module": server,
            "code": None,
            "facts": {},
            "differs": False,
            "text": f"{server} cannot be asked: {bad}",
        }
    said = facts(response)
    differs = (response.code, said) != (report["code"], report["facts"])
    return {
        "module": server,
        "code": response.code,
        "facts": said,
        "differs": differs,
        "text": _difference(report, server, response.code, said) if differs else f"{server} says the same",
    }


def _difference(report: Report, server: str, code: int, said: dict[str, str]) -> str:
    if code != report["code"]:
        hint = _HINTS.get(code, "it runs with other settings, as another user, or the files have changed meanwhile")
        return f"DIFFERENT: {server} answers {code}, not {report['code']}: {hint}"
    parts = [
        f"{name} {said.get(name, '(none)')}, not {report['facts'].get(name, '(none)')}"
        for name in sorted(said.keys() | report["facts"].keys())
        if said.get(name) != report["facts"].get(name)
    ]
    return f"DIFFERENT: {server} answers {code} too, but with {'; '.join(parts)}"


_HINTS: dict[int, str] = {
    wire.Code.CONFIG: "it has no CVM_LOOKUP_SECRET in its environment, not even an empty one",
    wire.Code.NOCRED: "it wants a secret: set CVM_LOOKUP_SECRET here to the same",
}


def as_bytes(value: str) -> bytes:
    """The bytes that `text` was given."""
    return value.encode("utf-8", "surrogateescape")
