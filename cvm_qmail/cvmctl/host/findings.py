"""What commands that look for mistakes find."""

from __future__ import annotations

from typing import NamedTuple

from cvm_qmail.cvmctl.ui.output import Node, text


class Finding(NamedTuple):
    """A mistake."""

    kind: str
    """An identifier: a key of `lint.kinds.KINDS`, or of an extension's."""
    file: bytes
    line: int | None
    what: str
    consequence: str
    remedy: str


def node(finding: Finding) -> Node:
    """A finding for people."""
    place = text(finding.file) + (f" line {finding.line}" if finding.line else "")
    return Node(
        f"{place}: {finding.what}",
        "failure",
        [Node(finding.consequence), Node(f"remedy: {finding.remedy}", "remedy"), Node(finding.kind, "dim")],
    )
