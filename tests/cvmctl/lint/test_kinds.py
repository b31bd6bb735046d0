"""Every kind of mistake is declared, and planted in some test."""

from __future__ import annotations

from cvmctl.lint import test_accounts as accounts
from cvmctl.lint import test_assign as assign
from cvmctl.lint import test_controls as controls
from cvmctl.lint import test_forwards as forwards
from cvmctl.lint import test_homes as homes
from cvmctl.lint import test_programs as programs

from cvm_qmail.cvmctl.lint.kinds import KINDS

ELSEWHERE = {
    "control-me-missing": "lint/test_controls",
    "label-missing": "lint/test_programs",
    "virtual-user-damaged": "test_vmailmgr",
    "route-missing": "lint/test_routes",
    "route-unknown": "lint/test_routes",
}
"""Kinds with a test of their own."""


def test_every_kind_is_planted_and_no_other() -> None:
    modules = (accounts, assign, controls, forwards, homes)
    planted = {mistake.kind for tests in modules for mistake in tests.MISTAKES}
    planted |= {kind for kind, *_ in programs.MISTAKES}
    assert planted | ELSEWHERE.keys() == KINDS.keys()
