"""cvmctl lint: the mistakes of a whole host, each with its place, its consequence and a remedy.

Exit status: 0 nothing found; 1 something was found; 111 some of it could not be determined.
"""

from __future__ import annotations

from collections.abc import Sequence

import click

from cvm_qmail.answer import Unavailable
from cvm_qmail.cvmctl.extension import extensions
from cvm_qmail.cvmctl.host import files
from cvm_qmail.cvmctl.host.child import in_child
from cvm_qmail.cvmctl.host.findings import Finding, node
from cvm_qmail.cvmctl.lint.checks import RULES, LintContext, Rule
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import SOME, TEMPORARY, text
from cvm_qmail.settings import Settings
from cvm_qmail.tables.door import HangGuard


@click.command()
@click.option("--routes", metavar="FILE", help="Also check this file for cvm-gateway --routes, and ask its modules.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each finding, each on one line.")
@click.pass_context
def lint(context: click.Context, /, *, routes: str | None, as_json: bool) -> None:
    """Look for mistakes on this host that make mail bounce or wait.

    It checks the control files, users/assign and users/cdb, the accounts, every home with its .qmail
    files, and where these forward to.  It changes nothing and runs no program.

    With --routes it also finds domains in rcpthosts without a route, and asks every module in FILE whether it
    knows the domains that are routed to it.  The settings for that are the gateway's, from the environment.

    The exit status is 0 if nothing was found, 1 if something was, 111 if something could not be determined.
    Run it as root, so that it can read every home.
    """
    settings = files.settings()
    files.warn_of_rights()
    check = None
    if routes is not None:
        from cvm_qmail.cvmctl.lint.routes import RoutesCheck

        check = RoutesCheck.of(routes)
    found, unknown = in_child(
        settings, lambda hang_guard: findings(settings, hang_guard, [check.rule] if check else [])
    )
    if check is not None:
        of_modules, silent = check.asked()
        found += of_modules
        unknown += silent
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


def findings(
    settings: Settings, hang_guard: HangGuard | None = None, more: Sequence[Rule] = ()
) -> tuple[list[Finding], list[Unavailable]]:
    """What was found, and what could not be determined; `more`: rules in addition to the usual ones."""
    context = LintContext(settings, hang_guard)
    found: list[Finding] = []
    for rule in (*RULES, *more, *(rule for extension in extensions() for rule in extension.rules)):
        try:
            for finding in rule(context):
                found.append(finding)  # noqa: PERF402  what was found before a failure counts
        except Unavailable as error:
            context.failures.append(error)
    unknown = {(error.reason, error.where): error for error in reversed(context.failures)}
    return list(dict.fromkeys(found)), list(reversed(unknown.values()))
