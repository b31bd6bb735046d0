"""cvmctl in this process, where that will do: for tests of what it says, not of how it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from click.testing import CliRunner

from cvm_qmail.cvmctl.group import cvmctl

CVMCTL = Path(sys.executable).with_name("cvmctl")


def called(*arguments: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """What comes of a command, as subprocess returns it; `env` is its whole environment.

    With another PYTHONPATH, for plug-ins that are to be found, it is a process of its own.
    """
    if env.get("PYTHONPATH") != os.environ.get("PYTHONPATH"):
        return subprocess.run([CVMCTL, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60)
    unset = dict.fromkeys(os.environ.keys() - env.keys())
    done = CliRunner().invoke(cvmctl, arguments, env={**unset, **env}, catch_exceptions=False)
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)
