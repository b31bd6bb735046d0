"""The golden corpus through the rules with plain dicts: no file is opened, nobody's rights are taken.

A system that is about files themselves (links, pipes, a directory where a control file should be) is
skipped here, with its reason; the real tree has them all, see test_corpus.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hosts import Host, as_bytes, load, systems
from memory import ROOT, from_corpus, module, request, responding
from test_corpus import expected_facts, verdict

from cvm_qmail.protocols.cvm import packets

SYSTEMS = systems("qmail")
NEED_FILES = 15


def needs_files(system: Mapping[str, Any]) -> str:
    """Why this system needs a real file system; empty: it does not."""
    kinds = {node["type"] for node in system["tree"]} - {"file", "dir"}
    if kinds:
        return f"has {' and '.join(sorted(kinds))}"
    odd = [node["path"] for node in system["tree"] if node["path"].startswith(("control", "users"))]
    return f"{odd[0]} is not what it should be" if odd else ""


def odd_answers(system: Mapping[str, Any]) -> list[str]:
    """What the responder says that qmail does not."""
    memory = from_corpus(system)
    respond = responding(module(memory), [])
    host = Host(Path(ROOT.decode()))
    odd = []
    for case in system["cases"]:
        given = {"account": as_bytes(case["local"])}
        if case["domain"] is not None:
            given["domain"] = as_bytes(case["domain"])
        response = packets.parse_response(respond(request(**given)))
        said, facts = verdict(response), dict(response.facts)
        address = f"{case['local']!r} at {case['domain']!r}"
        if said != case["expect"]:
            odd.append(f"{address}: {said}, expected {case['expect']} ({case['why']})")
        elif said == "deliver":
            domain = given.get("domain", memory.controls().envnoathost).decode("latin-1")
            expected = expected_facts(host, {**case, "domain": domain})
            if facts != expected:
                odd.append(f"{address}: {facts}, expected {expected}")
    return odd


@pytest.mark.parametrize("path", [p for p in SYSTEMS if not needs_files(load(p))], ids=lambda path: path.stem)
def test_every_verdict_is_qmails_without_a_file(path: Path) -> None:
    assert odd_answers(load(path)) == []


def test_no_more_is_left_out_than_needs_a_real_file_system() -> None:
    assert len([path for path in SYSTEMS if needs_files(load(path))]) == NEED_FILES
