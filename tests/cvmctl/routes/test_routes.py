"""cvmctl routes: the file, its modules, and the domains that nobody knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import called
from gateways import Module, accepted, module, out_of_scope
from hosts import temporary_directory
from serving import environment


@pytest.fixture
def asked() -> Iterator[Module]:
    """It knows domains that begin with ``ours``."""
    with temporary_directory() as directory, module(f"cvm-local:{directory}/module") as made:
        made.says = lambda recipient: (
            accepted() if (recipient.domain or b"ours").startswith(b"ours") else out_of_scope()
        )
        yield made


def check(path: Path, *arguments: str) -> tuple[int, str]:
    """Exit status and output."""
    done = called("routes", *arguments, str(path), env=environment(None, {"CVM_GATEWAY_TIMEOUT": "5000"}))
    return done.returncode, done.stdout + done.stderr


def test_modules_that_answer_and_know_their_domains_are_well(asked: Module, tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text(f"ours.test:{asked.address}\n.x.test:{asked.address}\n:{asked.address}\n")
    status, output = check(routes)
    assert status == 0, output
    assert f"{asked.address}: answers in " in output
    assert "(3 routes)" in output
    assert "nothing found" in output


def test_a_module_that_does_not_know_a_domain_is_found(asked: Module, tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text(f"ours.test:{asked.address}\ntheirs.test:{asked.address}\n")
    status, output = check(routes)
    assert status == 1
    assert f"{asked.address} says that theirs.test is not one of its domains" in output
    assert "route-unknown" in output
    assert check(routes, "--offline")[0] == 0


def test_a_module_that_does_not_answer_is_said(asked: Module, tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text(f"ours.test:cvm-local:{tmp_path}/nobody,{asked.address}\n")
    status, output = check(routes)
    assert status == 111
    assert "/nobody: backend-down: " in output
    assert "no answer from 1 module\n" in output
    assert "answers in" in output


def test_domains_of_rcpthosts_without_a_route_are_found(asked: Module, tmp_path: Path) -> None:
    routes, rcpthosts = tmp_path / "routes", tmp_path / "rcpthosts"
    routes.write_text(f"ours.test:{asked.address}\n.ours.test:{asked.address}\n")
    rcpthosts.write_text("# ours\nours.test\nsub.ours.test\n.ours.test\nOTHER.test\nmore.test OK\n # blank\n")
    status, output = check(routes, "--rcpthosts", str(rcpthosts))
    assert status == 1
    assert f"{rcpthosts} line 5: other.test has no route" in output
    assert f"{rcpthosts} line 6: more.test has no route" in output
    assert output.count("has no route") == 2
    routes.write_text(f":{asked.address}\n")
    assert check(routes, "--rcpthosts", str(rcpthosts))[0] == 0


def test_a_file_with_a_mistake_is_no_routes(tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text("ours.test:\x1b[31m\n")
    status, output = check(routes)
    assert status == 100
    assert "line 1: a control character" in output
    assert check(tmp_path / "missing")[0] == 100


def test_json_has_an_object_for_each_module_and_finding(asked: Module, tmp_path: Path) -> None:
    routes = tmp_path / "routes"
    routes.write_text(f"theirs.test:{asked.address}\n")
    status, output = check(routes, "--json")
    state, finding = map(json.loads, output.splitlines())
    assert status == 1
    assert state["module"] == asked.address
    assert state["error"] is None
    assert finding["kind"] == "route-unknown"
