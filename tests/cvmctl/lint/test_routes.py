"""cvmctl lint --routes: the host's domains, and the modules of the routes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from calling import called
from gateways import Module, accepted, module, out_of_scope
from hosts import Host, temporary_directory
from serving import environment, serving

pytestmark = pytest.mark.root


@pytest.fixture
def asked() -> Iterator[Module]:
    """It knows all domains but ``v.example``."""
    with temporary_directory() as directory, module(f"cvm-local:{directory}/module") as made:
        made.says = lambda recipient: out_of_scope() if recipient.domain == b"v.example" else accepted()
        yield made


def lint(host: Host, routes: Path, *arguments: str) -> tuple[int, list[str], str]:
    """Exit status, lines and standard error."""
    env = environment(host, {"CVM_GATEWAY_TIMEOUT": "5000"})
    done = called("lint", "--routes", str(routes), *arguments, env=env)
    return done.returncode, done.stdout.replace(str(host.root), "").splitlines(), done.stderr


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    return tmp_path / "routes"


def test_routes_that_fit_the_host_are_well(sound: Host, routes: Path, asked: Module) -> None:
    routes.write_text(f":{asked.address}\n")
    assert lint(sound, routes) == (0, ["nothing found"], "")
    assert len(asked.asked) == 1, "whether it answers"


def test_domains_of_rcpthosts_and_morercpthosts_want_a_route(sound: Host, routes: Path, asked: Module) -> None:
    routes.write_text(f"example.org:{asked.address}\n.w.example:{asked.address}\n")
    sound.control("rcpthosts", "example.org\nV.example\n.w.example\n")
    sound.control("morercpthosts", "other.example\n")
    sound.control("virtualdomains", (sound.root / "control/virtualdomains").read_text() + "other.example:\n")
    (sound.root / "control/morercpthosts.cdb").touch()
    status, lines, errors = lint(sound, routes)
    assert (status, errors) == (1, "")
    assert lines == [
        "/control/rcpthosts line 2: v.example has no route",
        "  every address of it is out of scope",
        "  remedy: add v.example:MODULE, or a default, to the routes",
        "  route-missing",
        "/control/morercpthosts line 1: other.example has no route",
        "  every address of it is out of scope",
        "  remedy: add other.example:MODULE, or a default, to the routes",
        "  route-missing",
        "2 found",
    ]


def test_a_module_that_does_not_know_a_domain_is_found(sound: Host, routes: Path, asked: Module) -> None:
    routes.write_text(f"v.example:{asked.address}\n:{asked.address}\n")
    status, lines, errors = lint(sound, routes, "--json")
    assert (status, errors) == (1, "")
    (finding,) = map(json.loads, lines)
    assert finding == {
        "kind": "route-unknown",
        "file": str(routes),
        "line": None,
        "what": f"{asked.address} says that v.example is not one of its domains",
        "consequence": "its addresses are out of scope, unless another module of the route knows them",
        "remedy": "correct the route, or add the domain to locals or virtualdomains there",
    }


def test_it_asks_the_server_of_the_host_itself(sound: Host, routes: Path) -> None:
    with serving(sound) as server:
        routes.write_text(f"example.org:{server.module}\nelsewhere.example:{server.module}\n:{server.module}\n")
        status, lines, _ = lint(sound, routes)
    assert status == 1
    assert f"{routes}: {server.module} says that elsewhere.example is not one of its domains" in lines
    assert lines[-1] == "1 found"


def test_a_module_that_does_not_answer_is_not_determined(sound: Host, routes: Path) -> None:
    routes.write_text(f":cvm-local:{sound.root}/nobody\n")
    status, lines, errors = lint(sound, routes)
    assert (status, lines) == (111, ["nothing found"])
    assert f"could not be determined: backend-down cvm-local:{sound.root}/nobody " in errors


def test_a_file_with_a_mistake_is_no_routes(sound: Host, routes: Path) -> None:
    assert lint(sound, routes)[0] == 100
    routes.write_text("example.org\n")
    status, lines, errors = lint(sound, routes)
    assert (status, lines) == (100, [])
    assert "line 1: expected DOMAIN:MODULE" in errors
