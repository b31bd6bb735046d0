"""cvmctl trace: every step of the lookup of an address.

Invariants: the explanation is that of the lookup itself (`capture`, `narrate`).  It is made in a child, so that a
home on a dead file server costs the deadline of a lookup and no more, as in the server.  With --server the
response that a server should send for this answer is compared with the one that it sends.

Exit status: 0 all accepted or out of scope; 1 one was rejected, or the server differs; 111 one could not be
determined.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import click

from cvm_qmail.answer import Recipient, Unavailable
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.verdicts import OUTCOME_STYLES
from cvm_qmail.cvmctl.trace import capture, narrate
from cvm_qmail.cvmctl.trace.remedies import remedies
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.arguments import module_named, recipient_of
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, Node, text
from cvm_qmail.exits import describe_exception
from cvm_qmail.plugin import ModuleFactory
from cvm_qmail.process.children import run_with_deadline
from cvm_qmail.protocols.cvm import client, packets
from cvm_qmail.protocols.cvm.packets import Fact
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import Tables

Report = dict[str, Any]
"""What is shown of one address; what --json prints."""


@click.command()
@click.argument("addresses", metavar="ADDRESS...", nargs=-1, required=True)
@click.option("--server", metavar="MODULE", help="Ask this running server too, and show any difference.")
@click.option("--module", "name", metavar="NAME", default="cvm-qmail", help="The installed module to explain.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each address, each on one line.")
@click.pass_context
def trace(
    context: click.Context, /, addresses: tuple[str, ...], *, server: str | None, name: str, as_json: bool
) -> None:
    """Explain how qmail treats each ADDRESS, step by step.

    It shows the control-file lines, each entry of users/cdb and of the password file that is tried, the
    controlling user, each .qmail name that is tried, the verdict with its reason word (as in the
    server's log), what an SMTP client would see, and what to do about it.  The settings are those of the
    server: give it the server's environment.

    The exit status is 1 if an address is rejected or the server differs, 111 if one could not be
    determined, else 0.

    \b
      cvmctl trace joe-list@example.org
      chpst -e /etc/sv/cvm-rcptto/env cvmctl trace --server cvm-local:/run/cvm-rcptto/socket joe@example.org
    """  # noqa: D301  click knows the control character, not the backslash
    settings = files.settings()
    files.warn_of_rights()
    factory = module_named(name)
    factory(Tables(settings), settings)  # what is wrong with a plug-in or its settings is said now
    statuses = set()
    for address in addresses:
        report = in_time(recipient_of(os.fsencode(address)), settings, factory, name)
        if server is not None:
            report["server"] = compared(report, server, settings)
        statuses.add(_status(report))
        if as_json:
            output.json_line(report)
        else:
            output.tree([node(report)])
    context.exit(max(statuses))


def _status(report: Report) -> int:
    server = report.get("server")
    if report["verdict"] == "temporary failure" or (server is not None and server["code"] is None):
        return TEMPORARY
    return SOME if report["verdict"] == "rejected" or (server is not None and server["differs"]) else 0


# -- in time ------------------------------------------------------------------------------------------


def in_time(recipient: Recipient, settings: Settings, factory: ModuleFactory, module: str = "cvm-qmail") -> Report:
    """The report on one address; a lookup that hangs is stopped after CVM_LOOKUP_TIMEOUT."""
    sys.stdout.flush()
    seconds = settings.lookup_timeout
    data, ended = run_with_deadline(lambda write: _report(write, recipient, settings, factory, module), seconds)
    what = "died" if ended else f"took longer than {seconds:g} seconds"
    *reports, _ = data.split(b"\n")
    if not reports:
        return late(recipient, module, what)
    report: Report = json.loads(reports[-1])
    if len(reports) < PARTS:
        report["remedies"].append(f"(the explanation is missing: making it {what})")
    return report


PARTS = 2
"""Reports that a child makes: the verdict, then everything.  A failure of the second must not hide the first."""


def _report(
    write: Callable[[bytes], None], recipient: Recipient, settings: Settings, factory: ModuleFactory, module: str
) -> None:
    """The child: writes its reports."""
    try:
        case = capture.look_up(recipient, settings, factory)
        for report in (short(case, module), full(case, module)):
            write(json.dumps(report).encode() + b"\n")
    except BaseException:
        output.warn(f"a bug in the explanation, please report it: {describe_exception()}")
        raise


def late(recipient: Recipient, module: str, what: str) -> Report:
    """The report on a lookup that died or took too long."""
    return _head(recipient, module) | {
        "verdict": "temporary failure",
        "text": f"temporary failure: the lookup {what}",
        "reason": None,
        "where": None,
        "user": None,
        "detail": None,
        "code": int(packets.Code.IO),
        "facts": {},
        "smtp": narrate.SMTP_TEMPORARY,
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


def short(case: capture.Case, module: str) -> Report:
    """The verdict."""
    outcome = case.outcome
    return _head(case.recipient, module) | {
        "verdict": "temporary failure" if isinstance(outcome, Unavailable) else outcome.verdict.word,
        "text": narrate.verdict(outcome),
        "reason": outcome.reason,
        "where": text(outcome.where) or None,
        "user": text(outcome.user) or None,
        "detail": (outcome.detail or None) if isinstance(outcome, Unavailable) else None,
        "code": case.response.code,
        "facts": facts(case.response),
        "smtp": narrate.smtp(case),
    }


def full(case: capture.Case, module: str) -> Report:
    """The verdict, how it came about, and what to do."""
    steps = [{"name": stage.name, "steps": [step._asdict() for step in stage.steps]} for stage in narrate.stages(case)]
    return short(case, module) | {"stages": steps, "remedies": remedies(case)}


def facts(response: packets.Response) -> dict[str, str]:
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
        Node(report["text"], OUTCOME_STYLES[report["verdict"]]),
        Node(f"SMTP: {report['smtp']}"),
        *(Node(f"remedy: {remedy}", "remedy") for remedy in report["remedies"]),
    ]
    server = report.get("server")
    if server is not None:
        ends.append(Node(server["text"], "failure" if server["differs"] or server["code"] is None else ""))
    return Node(report["address"], "title", [*stages, *ends])


# -- the running server -------------------------------------------------------------------------------


def compared(report: Report, server: str, settings: Settings) -> Report:
    """The answer of the running server for the same address, and whether it differs."""
    domain = report["domain"]
    try:
        response = client.ask(
            server,
            as_bytes(report["account"]),
            None if domain is None else as_bytes(domain),
            secret=settings.lookup_secret or None,
        )
    except client.NoAnswer as error:
        return {"module": server, "code": None, "facts": {}, "differs": False, "text": f"no answer: {error}"}
    except ValueError as bad:
        raise click.BadParameter(str(bad)) from None
    except packets.Malformed as bad:
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
        hint = _HINTS.get(code, "it has other settings, runs as another user, or a file has changed in between")
        return f"DIFFERENT: {server} answers {code}, not {report['code']}: {hint}"
    parts = [
        f"{name} {said.get(name, '(none)')}, not {report['facts'].get(name, '(none)')}"
        for name in sorted(said.keys() | report["facts"].keys())
        if said.get(name) != report["facts"].get(name)
    ]
    return f"DIFFERENT: {server} answers {code} too, but with {'; '.join(parts)}"


_HINTS: dict[int, str] = {
    packets.Code.CONFIG: "it has no CVM_LOOKUP_SECRET in its environment, not even an empty one",
    packets.Code.NOCRED: "it requires a secret: set CVM_LOOKUP_SECRET here to the same value",
}


def as_bytes(value: str) -> bytes:
    """The bytes that `text` was given."""
    return value.encode("utf-8", "surrogateescape")
