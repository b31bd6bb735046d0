"""What plug-ins add to cvmctl."""

from __future__ import annotations

import pytest

from cvm_qmail.cvmctl.extension import Extension, extensions
from cvm_qmail.cvmctl.trace import narrate
from cvm_qmail.entry_points import installed
from cvm_vpopmail import cvmctl


def test_those_of_installed_plug_ins_are_found() -> None:
    assert "vpopmail" in installed("cvm_qmail.helpers")
    assert cvmctl.extension in extensions()


def test_a_helper_may_leave_out_everything() -> None:
    extension = Extension()
    assert extension.words("file", b"/x", b"secret") is None
    assert extension.instruction(b"/bin/x") is None
    assert (extension.remedies, extension.rules) == ({}, ())


@pytest.mark.parametrize(
    ("table", "value", "said"),
    [
        ("enters", True, "/x can be entered"),
        ("enters", False, "/x cannot be entered"),
        ("writable", True, "/x can be written to"),
        ("writable", False, "/x cannot be written to"),
        ("writable", None, "/x is not there"),
        ("is_link", True, "/x is a symbolic link"),
        ("is_link", None, "/x is no symbolic link"),
        ("listing", [b"a", b"b"], "/x has 2 names"),
        ("file", b"sesame", "file /x: found"),
        ("file", None, "file /x: not there"),
        ("anything", "sesame", "anything /x: found"),
    ],
)
def test_a_plug_in_without_one_is_shown_plainly_and_without_what_it_read(table: str, value: object, said: str) -> None:
    assert narrate._plainly(table, "/x", value) == said
