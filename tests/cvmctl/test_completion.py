"""cvmctl completion: a real shell completes with it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cvm_qmail.cvmctl.commands import commands

CVMCTL = Path(sys.executable).with_name("cvmctl")
WITH_PATH = {**os.environ, "PATH": f"{CVMCTL.parent}:{os.environ['PATH']}"}


def run(*command: str | Path, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, env={**WITH_PATH, **more}, capture_output=True, text=True, check=False, timeout=30)


def completed(*words: str) -> set[str]:
    """What bash offers for the last of these words."""
    done = run(
        "bash",
        "-c",
        'eval "$(cvmctl completion bash)"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _cvmctl_completion cvmctl;'
        ' printf "%s\\n" "${COMPREPLY[@]}"',
        "bash",
        *words,
    )
    return set(done.stdout.split())


def test_bash_completes_subcommands() -> None:
    assert completed("cvmctl", "de") == {"decode"}
    assert completed("cvmctl", "") == set(commands())


def test_bash_completes_options_and_choices() -> None:
    assert completed("cvmctl", "bench", "--se") == {"--seconds"}
    assert completed("cvmctl", "completion", "z") == {"zsh"}


@pytest.mark.parametrize(("shell", "offers"), [("bash", "plain,decode"), ("zsh", "decode"), ("fish", "plain,decode")])
def test_every_shell_has_a_script_and_is_answered(shell: str, offers: str) -> None:
    script = run(CVMCTL, "completion", shell).stdout
    assert f"_CVMCTL_COMPLETE={shell}_complete" in script
    words = "de" if shell == "fish" else "1"  # fish says which word it is, the others which number it has
    done = run(CVMCTL, _CVMCTL_COMPLETE=f"{shell}_complete", COMP_WORDS="cvmctl de", COMP_CWORD=words)
    assert offers in done.stdout


def test_another_shell_is_wrong_usage() -> None:
    done = run(CVMCTL, "completion", "csh")
    assert (done.returncode, "'csh' is not one of" in done.stderr) == (2, True)
