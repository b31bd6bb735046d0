"""cvmctl lint: the mistakes of a whole host, each with its place, its consequence and a remedy.

Exit status: 0 nothing found; 1 something was found; 111 some of it could not be told.
"""

from __future__ import annotations

import click

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import Settings
from cvm_qmail.tables import Hazards
from cvm_qmail.tool import host, show
from cvm_qmail.tool.apart import apart
from cvm_qmail.tool.helpers import helpers
from cvm_qmail.tool.mistakes import RULES, Finding, Sight
from cvm_qmail.tool.show import SOME, TEMPORARY, Node, text


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line for each finding.")
@click.pass_context
def lint(context: click.Context, /, *, as_json: bool) -> None:
    """Look for mistakes on this host that make mail bounce or wait.

    Checked are the control files, users/assign and users/cdb, the accounts, every home with its .qmail
    files, and where these forward to.  Nothing is changed and no program is run.

    The exit status is 0 if nothing was found, 1 if something was, 111 if some of it could not be told.
    Run it as root: nobody else may look into every home.
    """
    settings = host.settings()
    host.warn_of_rights()
    found, unknown = apart(settings, lambda hazards: findings(settings, hazards))
    for finding in found:
        if as_json:
            show.json_line(finding._asdict())
        else:
            show.tree([node(finding)])
    for trouble in unknown:
        show.warn(f"could not tell: {trouble.reason} {text(trouble.where)} {trouble.detail}")
    if not as_json:
        show.line(f"{len(found)} found" if found else "nothing found", "title" if found or unknown else "yes")
    context.exit(TEMPORARY if unknown else SOME if found else 0)


def findings(settings: Settings, hazards: Hazards | None = None) -> tuple[list[Finding], list[Unavailable]]:
    """What was found, and what could not be told."""
    sight = Sight(settings, hazards)
    found: list[Finding] = []
    for rule in (*RULES, *(rule for helper in helpers() for rule in helper.rules)):
        try:
            for finding in rule(sight):
                found.append(finding)  # noqa: PERF402  what was found before a trouble counts
        except Unavailable as trouble:
            sight.troubles.append(trouble)
    unknown = {(trouble.reason, trouble.where): trouble for trouble in reversed(sight.troubles)}
    return list(dict.fromkeys(found)), list(reversed(unknown.values()))


def node(finding: Finding) -> Node:
    """A finding for people."""
    place = text(finding.file) + (f" line {finding.line}" if finding.line else "")
    return Node(
        f"{place}: {finding.what}",
        "trouble",
        [Node(finding.consequence), Node(f"remedy: {finding.remedy}", "remedy"), Node(finding.kind, "dim")],
    )
