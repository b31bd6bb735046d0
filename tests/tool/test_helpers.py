"""What plug-ins tell cvmctl of themselves."""

from __future__ import annotations

import pytest

from cvm_qmail.lookups import installed
from cvm_qmail.tool import explain
from cvm_qmail.tool.helpers import Helper, helpers
from cvm_vpopmail import people


def test_those_of_installed_plug_ins_are_found() -> None:
    assert "vpopmail" in installed("cvm_qmail.helpers")
    assert people.helper in helpers()


def test_a_helper_may_leave_out_everything() -> None:
    helper = Helper()
    assert helper.words("file", b"/x", b"secret") is None
    assert helper.instruction(b"/bin/x") is None
    assert (helper.remedies, helper.rules) == ({}, ())


@pytest.mark.parametrize(
    ("table", "value", "said"),
    [
        ("enters", True, "/x can be entered"),
        ("enters", False, "/x cannot be entered"),
        ("writable", True, "/x can be written to"),
        ("writable", False, "/x cannot be written to"),
        ("writable", None, "/x is not there"),
        ("listing", [b"a", b"b"], "/x has 2 names"),
        ("file", b"sesame", "file /x: found"),
        ("file", None, "file /x: not there"),
        ("anything", "sesame", "anything /x: found"),
    ],
)
def test_a_plug_in_without_one_is_shown_plainly_and_without_what_it_read(table: str, value: object, said: str) -> None:
    assert explain._plainly(table, "/x", value) == said
