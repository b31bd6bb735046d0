"""cvmctl in this process: for tests of what it says, not of how it starts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping

from click.testing import CliRunner

from cvm_qmail.cvmctl.group import cvmctl


def called(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What comes of a command, as subprocess returns it; `env` is its whole environment."""
    unset = dict.fromkeys(os.environ.keys() - env.keys())
    done = CliRunner().invoke(cvmctl, arguments, env={**unset, **env}, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
