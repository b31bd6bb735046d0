"""The output of `cvmctl setup`: what was found, what would be written, what comes next.  A secret is never shown."""

from __future__ import annotations

from cvm_qmail.cvmctl.setup.plan import File, Plan
from cvm_qmail.cvmctl.setup.services import Service
from cvm_qmail.cvmctl.setup.survey import Survey
from cvm_qmail.cvmctl.ui import output
from cvm_qmail.cvmctl.ui.output import Node

_HIDDEN = "(a secret)"


def show_found(found: Survey) -> None:
    """Prints what is on the host."""
    output.tree([Node("found", "title", [*_found(found)])])


def _found(found: Survey) -> list[Node]:
    nodes = [Node(f"qmail: {found.qmail}") if found.qmail else Node("qmail: none", "failure")]
    if found.vpopmail:
        kept = f"accounts in {found.vpopmail.database}" if found.vpopmail.database else "accounts in files"
        nodes.append(Node(f"vpopmail: {found.vpopmail.home}, {found.vpopmail.domains} domains, {kept}"))
    nodes.append(Node(f"supervisors: {', '.join(found.supervisors) or 'none'}"))
    if found.mailfront:
        nodes.append(Node(f"mailfront: {found.mailfront}"))
    if found.smtpd is not None:
        nodes.append(Node(f"qmail-smtpd: {', '.join(patch.name for patch in found.smtpd) or 'no patch that can ask'}"))
    nodes += [Node(_service(service)) for service in found.services]
    return nodes


def _service(service: Service) -> str:
    what = ("the C program" if service.is_c else "recipient check") if service.checks else "SMTP server"
    module = f", {service.module}" if service.module else ""
    return f"{what}: {service.directory} ({service.supervisor}): {service.program}{module}"


def show_plan(chosen: Plan, *, applied: bool) -> None:
    """Prints the files."""
    title = "written" if applied else "would be written"
    output.tree([Node(title, "title", [_file(file) for file in chosen.files])])


def _file(file: File) -> Node:
    """The lines without comments and without the backslash that continues a line, which would be shown escaped."""
    lines = [line.rstrip("\\ ") for line in file.text.splitlines() if line and not line.startswith("#")]
    shown = [line.partition("CVM_LOOKUP_SECRET=")[0] or f"CVM_LOOKUP_SECRET={_HIDDEN}" for line in lines]
    if file.secret and len(lines) == 1:
        shown = [_HIDDEN]
    return Node(f"{file.path} (mode {file.mode:04o})", children=[Node(line, "dim") for line in shown])


def show_next(found: Survey, chosen: Plan, *, applied: bool) -> None:
    """Prints what to do now."""
    if not applied:
        output.line("nothing was written; --apply writes it", "title")
        return
    output.tree([Node("next", "title", [Node(command) for command in chosen.commands])])
    for line in advice(found):
        output.line(line)


def advice(found: Survey) -> list[str]:
    """What else there is to do, for what was found."""
    lines = []
    if found.vpopmail and found.vpopmail.database:
        lines.append(f"the accounts are in a database: cvm-qmail needs its extra {found.vpopmail.database}")
    ways = [patch.page for patch in found.smtpd or () if patch.page]
    page = "mailfront.md" if found.mailfront else next(iter(ways), "README.md")
    lines.append(f"then connect the mail server: docs/mail-servers/{page}")
    lines += [f"{patch.name}: {patch.note}" for patch in found.smtpd or () if patch.note]
    lines.append("to remove all of it: cvmctl setup --undo")
    return lines


def as_json(found: Survey, chosen: Plan) -> dict[str, object]:
    """All of it as one object."""
    return {
        "qmail": found.qmail,
        "vpopmail": found.vpopmail._asdict() if found.vpopmail else None,
        "supervisors": found.supervisors,
        "mailfront": found.mailfront,
        "qmail_smtpd": None if found.smtpd is None else [patch.name for patch in found.smtpd],
        "services": [service._asdict() for service in found.services],
        "supervisor": chosen.supervisor,
        "name": chosen.name,
        "module": chosen.module,
        "files": [{"path": file.path, "mode": f"{file.mode:04o}", "text": _text(file)} for file in chosen.files],
        "next": chosen.commands,
        "advice": advice(found),
    }


def _text(file: File) -> str:
    return _HIDDEN if file.secret else file.text
