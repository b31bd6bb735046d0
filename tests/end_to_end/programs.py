"""Other programs, started as an administrator starts them: by name, in a clean environment, with a time-out."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from serving import CVM_QMAIL, PATIENCE

CONTRIB = Path(__file__).parents[2] / "contrib"


def clean_environment(more: Mapping[str, str]) -> dict[str, str]:
    """PATH with our cvm-qmail first, as an installation would have it, and `more`."""
    return {"PATH": f"{CVM_QMAIL.parent}:{os.environ['PATH']}", **more}


def run(*command: str | Path, given: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A program that ends by itself; keyword arguments are its environment."""
    return subprocess.run(
        command,
        input=given,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env=clean_environment(environment),
    )


def beside(peer: str, name: str) -> Path:
    """The program `name` in the directory of `peer`: ours and the C one share a name."""
    return Path(shutil.which(peer) or peer).with_name(name)
