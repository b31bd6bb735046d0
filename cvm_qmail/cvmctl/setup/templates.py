"""The services of contrib/: in the wheel beside this module, in a checkout at its top."""

from __future__ import annotations

import os

_HERE = os.path.dirname(os.path.abspath(__file__))
_PLACES = (os.path.join(_HERE, "contrib"), os.path.join(_HERE, "../../../contrib"))


def template(name: str) -> str:
    """The text of a file of contrib/.  Raises OSError."""
    return _read(os.path.join(_directory(), name))


def templates(name: str) -> dict[str, str]:
    """The files below a directory of contrib/, by their path in it.  Raises OSError."""
    top = os.path.join(_directory(), name)
    paths = [os.path.join(directory, file) for directory, _, files in os.walk(top) for file in files]
    return {os.path.relpath(path, top): _read(path) for path in sorted(paths)}


def _directory() -> str:
    return next((place for place in _PLACES if os.path.isdir(place)), _PLACES[0])


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
