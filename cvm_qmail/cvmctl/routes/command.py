"""cvmctl routes: whether a file of routes is sound, its modules answer, and the domains are known there.

Exit status: 0 nothing found; 1 something was found; 100 the file is no routes; 111 a module does not answer.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import click

from cvm_qmail.cvmctl.host.files import Line, lines_in
from cvm_qmail.cvmctl.lint.command import node
from cvm_qmail.cvmctl.lint.context import Finding
from cvm_qmail.cvmctl.routes.asking import Found, ask
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import PERMANENT, SOME, TEMPORARY, Failure, counted, text
from cvm_qmail.gateway.modules import CannotAsk
from cvm_qmail.gateway.routes_file import BadRoutes, RoutesFile
from cvm_qmail.gateway.settings import Settings
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
    try:
        read = RoutesFile(file).read()
    except BadRoutes as bad:
        raise Failure(str(bad), PERMANENT) from None
    findings = [finding for name in rcpthosts for finding in without_route(read, lines_of(name))]
    found = Found([], [])
    if not offline:
        try:
            found = ask(read, Settings.from_environment())
        except CannotAsk as error:
            raise Failure(str(error), PERMANENT) from None
    findings += unknown_domains(file, found)
    _show_json(found, findings) if as_json else _show(read, found, findings)
    silent = any(state.error for state in found.modules)
    context.exit(TEMPORARY if silent else SOME if findings else 0)


def lines_of(name: str) -> list[Line]:
    """The entries of a file as qmail reads control files.  Raises OSError."""
    with open(name, "rb") as file:
        return lines_in(os.fsencode(name), file.read())


def without_route(read: Routes, lines: list[Line]) -> Iterator[Finding]:
    """Domains in rcpthosts about which no module is asked."""
    for line in lines:
        domain = line.value.lower().split(b"#")[0].split()[0] if line.value.split() else b""
        if domain and not read.of(domain):
            yield Finding(
                "route-missing",
                line.file,
                line.number,
                f"{text(domain)} has no route",
                "every address of it is out of scope",
                f"add {text(domain)}:MODULE, or a default, to the routes",
            )


def unknown_domains(file: str, found: Found) -> Iterator[Finding]:
    """Routes to modules that do not know the domain."""
    for domain, module in found.unknown:
        yield Finding(
            "route-unknown",
            os.fsencode(file),
            None,
            f"{module} says that {text(domain)} is not one of its domains",
            "its addresses are out of scope, unless another module of the route knows them",
            "correct the route, or add the domain to locals or virtualdomains there",
        )


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
