"""The fuzz targets hold for a while, and can fail."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
from serving import PATIENCE

RUN = Path(__file__).parent.parent / "fuzz/run.py"
ROUNDS = 1500


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_run", RUN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


run = load()


@pytest.mark.parametrize("name", run.TARGETS)
def test_a_target_holds(name: str) -> None:
    find = run.plain(run.load(name), ROUNDS, float("inf"), seed=1)
    assert find is None, f"{find.hex()}\n{run.breaks(run.load(name), find)}"


def test_there_are_targets() -> None:
    assert {"cdb", "control", "dotforward", "dotqmail", "fastforward", "log", "program_line"} <= {*run.TARGETS}
    assert {"lookup", "policy", "socketmap", "http", "addresses"} <= {*run.TARGETS}
    assert {"responses", "vdelivermail", "vpasswd", "wire"} <= {*run.TARGETS}


def test_a_broken_invariant_is_found_and_made_short() -> None:
    def check(data: bytes) -> None:
        assert b"\xff" not in data

    assert run.plain(SimpleNamespace(SEEDS=[b"some seed"], check=check), 10_000, float("inf"), seed=1) == b"\xff"


def test_the_command_ends_by_itself() -> None:
    subprocess.run([sys.executable, RUN, "responses", "--rounds", "50", "--seed", "1"], check=True, timeout=PATIENCE)
