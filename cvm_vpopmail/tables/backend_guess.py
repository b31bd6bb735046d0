"""Whether accounts really are in cdb files, if no setting names a back end."""

from __future__ import annotations

import os

from cvm_qmail.answer import Unavailable
from cvm_qmail.settings import BadSetting
from cvm_qmail.tables.door import Tables
from cvm_vpopmail.settings import seen_dialect


class BackendGuess:
    """The assumption that accounts are in cdb files, where no setting names a back end.

    It is checked again before an account counts as missing: since the start, vpopmail's directory may have been
    mounted, or its accounts moved to a database; or the settings may name the wrong directory.
    """

    def __init__(self, tables: Tables, directory: bytes) -> None:
        self._tables = tables
        self._directory = directory

    def confirm(self, *, files: bool) -> None:
        """Raises `Unavailable` if the guess may be wrong.  `files`: whether the domain has a vpasswd of any kind."""

        def holds() -> bool:
            try:
                return seen_dialect(self._directory) is None and (files or os.path.isdir(self._directory))
            except BadSetting:
                return False

        if not self._tables.as_self(holds):
            raise Unavailable(
                "backend-unknown",
                "no vpopmail is there, or one with a database: set CVM_VPOPMAIL_DIR and"
                " CVM_VPOPMAIL_BACKEND, or restart the server",
                self._directory,
            )
        self._tables.current.recheck_with(self._directory, holds)
