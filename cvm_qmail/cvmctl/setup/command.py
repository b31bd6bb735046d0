"""cvmctl setup: what is on this host, and the service that fits it, in dry-run mode.

Exit status: 0 done, or shown; 1 --undo left something; 100 it cannot be done so; 111 it failed.
"""

from __future__ import annotations

import os

import click

from cvm_qmail.cvmctl.setup import manifest
from cvm_qmail.cvmctl.setup.plan import ACCOUNT, Plan, plan
from cvm_qmail.cvmctl.setup.program import closed_directory, server_program
from cvm_qmail.cvmctl.setup.report import as_json, show_found, show_next, show_plan
from cvm_qmail.cvmctl.setup.survey import SUPERVISORS, Survey, survey
from cvm_qmail.cvmctl.setup.tree import Tree
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import PERMANENT, SOME, Failure


@click.command()
@click.option("--apply", "applied", is_flag=True, help="Write the files.")
@click.option("--undo", "undone", is_flag=True, help="Remove the files that --apply wrote.")
@click.option("--supervisor", type=click.Choice(SUPERVISORS), help="The supervisor, if it is not found.")
@click.option("--program", metavar="PATH", help="The server, if it is not in cvmctl's directory.")
@click.option("--root", metavar="DIRECTORY", default="/", help="The root of the host's files, for another host.")
@click.option("--json", "json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def setup(
    context: click.Context,
    /,
    *,
    applied: bool,
    undone: bool,
    supervisor: str | None,
    program: str | None,
    root: str,
    json: bool,
) -> None:
    """Show what this qmail host has, and which service fits it; with --apply, write the service.

    It looks for qmail, vpopmail, mailfront, the patches of qmail-smtpd, runit, s6 and systemd, and an existing
    recipient check.  The service has its own name and socket, the secret of the existing check or a new one, and
    starts in dry-run mode.  No existing file is changed, and nothing is started.

    The exit status is 1 if --undo left something that was changed since, 100 if it cannot be done, 111 if writing
    failed, else 0.
    """
    if applied and undone:
        raise click.UsageError("--apply and --undo exclude each other")
    tree = Tree(os.path.abspath(root))
    if undone:
        context.exit(_undo(tree))
    found = survey(tree, os.environ)
    chosen = _plan(tree, found, supervisor, program)
    if applied:
        _apply(tree, found, chosen)
    if json:
        output.json_exactly(as_json(found, chosen))  # scripts and units, with line ends and backslashes
        return
    show_found(found)
    show_plan(chosen, applied=applied)
    show_next(found, chosen, applied=applied)


def _plan(tree: Tree, found: Survey, supervisor: str | None, program: str | None) -> Plan:
    used = [service.supervisor for service in found.checks if service.supervisor in found.supervisors]
    chosen = supervisor or next(iter([*used, *found.supervisors]), None)
    if chosen is None:
        raise Failure("found neither runit nor s6 nor systemd: choose with --supervisor", PERMANENT)
    if program is not None and not program.startswith("/"):
        raise Failure(f"{program}: expected a path that starts with /", PERMANENT)
    server = program or server_program()
    if closed := closed_directory(server):
        output.warn(
            f"{closed}: not accessible to the account {ACCOUNT}, which has to run {server}: install it elsewhere"
        )
    return plan(tree, found, chosen, server)


def _apply(tree: Tree, found: Survey, chosen: Plan) -> None:
    if found.qmail is None:
        raise Failure("found no qmail: name its directory with QMAIL_ROOT", PERMANENT)
    if manifest.written(tree) is not None:
        raise Failure(f"{manifest.MANIFEST}: applied before; --undo comes first", PERMANENT)
    manifest.apply(tree, chosen)


def _undo(tree: Tree) -> int:
    """Removes what was written; returns the exit status."""
    wrote = manifest.written(tree)
    if wrote is None:
        output.line("nothing to undo")
        return 0
    used = [path for path in wrote.in_use if tree.exists(path)]
    if used:
        raise Failure(f"{used[0]}: the service is in use: stop it and remove this link first", PERMANENT)
    gone, left = manifest.undo(tree, wrote)
    for path in gone:
        output.line(f"removed {path}")
    for path in left:
        output.line(f"left {path}: it was changed, or has other files in it", "failure")
    return SOME if left else 0
