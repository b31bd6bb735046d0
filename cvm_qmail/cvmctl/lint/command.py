"""cvmctl lint: the mistakes of a whole host, each with its place, its consequence and a remedy.

Exit status: 0 nothing found; 1 something was found; 111 some of it could not be determined.
"""

from __future__ import annotations

import click

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import extensions
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.sandbox import apart
from cvm_qmail.cvmctl.lint.checks import RULES, Finding, LintContext
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, Node, text
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, each on one line.")
@click.pass_context
def lint(context: click.Context, /, *, as_json: bool) -> None:
    """Look for mistakes on this host that make mail bounce or wait.

    It checks the control files, users/assign and users/cdb, the accounts, every home with its .qmail
    files, and where these forward to.  It changes nothing and runs no program.

    The exit status is 0 if nothing was found, 1 if something was, 111 if something could not be determined.
    Run it as root, so that it can read every home.
    """
    settings = files.settings()
    files.warn_of_rights()
    found, unknown = apart(settings, lambda hang_guard: findings(settings, hang_guard))
    for finding in found:
        if as_json:
            output.json_line(finding._asdict())
        else:
            output.tree([node(finding)])
    for error in unknown:
        output.warn(f"could not be determined: {error.reason} {text(error.where)} {error.detail}")
    if not as_json:
        output.line(f"{len(found)} found" if found else "nothing found", "title" if found or unknown else "yes")
    context.exit(TEMPORARY if unknown else SOME if found else 0)


def findings(settings: Settings, hang_guard: HangGuard | None = None) -> tuple[list[Finding], list[Unavailable]]:
    """What was found, and what could not be determined."""
    context = LintContext(settings, hang_guard)
    found: list[Finding] = []
    for rule in (*RULES, *(rule for extension in extensions() for rule in extension.rules)):
        try:
            for finding in rule(context):
                found.append(finding)  # noqa: PERF402  what was found before a failure counts
        except Unavailable as error:
            context.failures.append(error)
    unknown = {(error.reason, error.where): error for error in reversed(context.failures)}
    return list(dict.fromkeys(found)), list(reversed(unknown.values()))


def node(finding: Finding) -> Node:
    """A finding for people."""
    place = text(finding.file) + (f" line {finding.line}" if finding.line else "")
    return Node(
        f"{place}: {finding.what}",
        "failure",
        [Node(finding.consequence), Node(f"remedy: {finding.remedy}", "remedy"), Node(finding.kind, "dim")],
    )
