"""Plug-ins by name: the entry points of the distributions that are installed.

Law: what is found is what importlib.metadata finds, of which the first on sys.path counts.  It is read
here because that module takes longer to import than all the rest of command mode; where a distribution
is not in a folder, it is asked after all.

Source: the specification of entry points (entry_points.txt in the dist-info folder).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

_SECTION = re.compile(r"\[\s*(.*?)\s*\]")
_POINT = re.compile(r"(?P<name>[^=]+?)\s*=\s*(?P<module>[\w.]+)\s*(?::\s*(?P<attribute>[\w.]+)\s*)?(?:\[.*\])?")


def installed(group: str) -> dict[str, Callable[[], Any]]:
    """The entry points of `group` by name; call one to load it.  Raises what importing it raises."""
    found: dict[str, Callable[[], Any]] = {}
    for folder in sys.path:
        try:
            texts = list(_texts(folder or "."))
        except OSError:  # an archive, say
            return _asked(group)
        for text in texts:
            for name, module, attribute in points(text, group):
                found.setdefault(name, _Loader(module, attribute))
    return found


def points(text: str, group: str) -> Iterator[tuple[str, str, str]]:
    """Name, module and attribute (may be empty) of each entry point of `group`."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if header := _SECTION.fullmatch(line):
            section = header[1]
        elif section == group and not line.startswith(("#", ";")) and (point := _POINT.fullmatch(line)):
            yield point["name"], point["module"], point["attribute"] or ""


def _texts(folder: str) -> Iterator[str]:
    """The entry_points.txt of each distribution in this entry of sys.path.  Raises OSError if it is no folder."""
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                with open(os.path.join(folder, name, "entry_points.txt"), encoding="utf-8", errors="replace") as file:
                    yield file.read()
            except (FileNotFoundError, NotADirectoryError):
                continue


class _Loader:
    """Imports what an entry point names."""

    def __init__(self, module: str, attribute: str) -> None:
        self._module = module
        self._attribute = attribute

    def __call__(self) -> Any:
        """The object."""
        from importlib import import_module

        value = import_module(self._module)
        for name in filter(None, self._attribute.split(".")):
            value = getattr(value, name)
        return value


def _asked(group: str) -> dict[str, Callable[[], Any]]:
    from importlib.metadata import entry_points

    return {point.name: point.load for point in entry_points(group=group)}
