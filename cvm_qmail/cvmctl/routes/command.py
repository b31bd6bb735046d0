"""cvmctl routes: whether a file of routes is sound, its modules answer, and the domains are known there.

Exit status: 0 nothing found; 1 something was found; 100 the file is no routes; 111 a module does not answer.
"""

from __future__ import annotations

import os

import click

from cvm_qmail.cvmctl.host import routes as host_routes
from cvm_qmail.cvmctl.host.files import Line, lines_in
from cvm_qmail.cvmctl.host.findings import Finding, node
from cvm_qmail.cvmctl.host.routes import Found, ask, unknown_domains, without_route
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, counted, text
from cvm_qmail.protocols.routes import Routes


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--rcpthosts", multiple=True, type=click.Path(), help="A file of domains, each of which should have a route."
)
@click.option("--offline", is_flag=True, help="Only read the files; ask no module.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each module and finding.")
@click.pass_context
def routes(context: click.Context, /, file: str, rcpthosts: tuple[str, ...], *, offline: bool, as_json: bool) -> None:
    """Check a FILE for cvm-gateway --routes, and ask every module in it.

    Each module is asked whether it answers, and whether it knows the domains that are routed to it.  The
    settings are the gateway's, from the environment: secret, token, certificates, time-out.

    With --rcpthosts (control/rcpthosts, or any file with one domain per line) domains without a route are found.

    The exit status is 0 if all is well, 1 if something was found, 100 if FILE is not a file of routes, 111 if a
    module does not answer.
    """
    read = host_routes.read(file)
    findings = [finding for name in rcpthosts for finding in without_route(read, lines_of(name))]
    found = Found([], []) if offline else ask(read)
    findings += unknown_domains(file, found)
    _show_json(found, findings) if as_json else _show(read, found, findings)
    silent = any(state.error for state in found.modules)
    context.exit(TEMPORARY if silent else SOME if findings else 0)


def lines_of(name: str) -> list[Line]:
    """The entries of a file as qmail reads control files.  Raises OSError."""
    with open(name, "rb") as file:
        return lines_in(os.fsencode(name), file.read())


def _show(read: Routes, found: Found, findings: list[Finding]) -> None:
    for state in found.modules:
        domains = sum(state.module in names for names in read.modules.values())
        said = state.error or f"answers in {state.seconds * 1000:.1f} ms"
        output.line(f"{state.module}: {said} ({counted(domains, 'route')})", "failure" if state.error else "yes")
    output.tree(map(node, findings))
    silent = sum(bool(state.error) for state in found.modules)
    if silent:
        output.line(f"no answer from {counted(silent, 'module')}", "failure")
    output.line(f"{len(findings)} found" if findings else "nothing found", "title" if findings or silent else "yes")


def _show_json(found: Found, findings: list[Finding]) -> None:
    for state in found.modules:
        output.json_line({"module": state.module, "milliseconds": state.seconds * 1000, "error": state.error or None})
    for finding in findings:
        output.json_line(
            {name: text(value) if isinstance(value, bytes) else value for name, value in finding._asdict().items()}
        )
