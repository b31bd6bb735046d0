"""Installed plug-ins by name: the entry points of the installed distributions.

Invariants: this finds what importlib.metadata finds; the first on sys.path wins.  The files are read
here because importing that module takes longer than the rest of command mode together.  If an entry of
sys.path is not a directory (an archive, say), importlib.metadata is used after all.

Source: the specification of entry points (entry_points.txt in the dist-info directory).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from cvm_qmail.plugin import Plugin
from cvm_qmail.settings import SETTINGS, BadSetting, Setting, Settings
from cvm_qmail.tables.door import Tables

_SECTION = re.compile(r"\[\s*(.*?)\s*\]")
_POINT = re.compile(r"(?P<name>[^=]+?)\s*=\s*(?P<module>[\w.]+)\s*(?::\s*(?P<attribute>[\w.]+)\s*)?(?:\[.*\])?")


def installed(group: str) -> dict[str, Callable[[], Any]]:
    """The entry points of `group` by name; call one to load it, which raises `BadSetting` if it cannot be imported."""
    found: dict[str, Callable[[], Any]] = {}
    for directory in sys.path:
        try:
            texts = list(_texts(directory or "."))
        except OSError:  # an archive, say
            return _from_importlib(group)
        for text in texts:
            if group in text:
                for name, module, attribute in points(text, group):
                    found.setdefault(name, _Loader(name, module, attribute))
    return found


def points(text: str, group: str) -> Iterator[tuple[str, str, str]]:
    """Name, module and attribute (which may be empty) of each entry point of `group`."""
    section = ""
    for line in map(str.strip, text.splitlines()):
        if header := _SECTION.fullmatch(line):
            section = header[1]
        elif section == group and not line.startswith(("#", ";")) and (point := _POINT.fullmatch(line)):
            yield point["name"], point["module"], point["attribute"] or ""


def load_programs(tables: Tables, settings: Settings) -> list[Plugin]:
    """The plug-ins for delivery programs: those that CVM_QMAIL_PROGRAMS names, by default all that are installed.

    Raises `BadSetting` for a name that is not installed, and what a plug-in's factory raises.
    """
    if settings.programs == ():
        return []
    factories = installed("cvm_qmail.programs")
    names = tuple(sorted(factories)) if settings.programs is None else settings.programs
    unknown = [name for name in names if name not in factories]
    if unknown:
        known = ", ".join(sorted(factories)) or "(none)"
        raise BadSetting("CVM_QMAIL_PROGRAMS", " ".join(names), f"names of installed plug-ins: {known}")
    return [factories[name]()(tables, settings) for name in names]


def all_settings() -> dict[str, dict[str, Setting[Any]]]:
    """The settings of every module, and those of installed plug-ins by the name of their entry point."""
    found = installed("cvm_qmail.settings")
    return {"cvm-qmail": SETTINGS, **{name: found[name]() for name in sorted(found)}}


def _texts(directory: str) -> Iterator[str]:
    """The entry_points.txt of each distribution in this entry of sys.path.  Raises OSError if it is no directory."""
    try:
        names = sorted(os.listdir(directory))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            try:
                fd = os.open(os.path.join(directory, name, "entry_points.txt"), os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with open(fd, "rb", buffering=0) as file:  # a third of the time that a text file takes
                yield file.read().decode("utf-8", "replace")


class _Loader:
    """Imports the object that an entry point names."""

    def __init__(self, name: str, module: str, attribute: str) -> None:
        self._name = name
        self._module = module
        self._attribute = attribute

    def __call__(self) -> Any:
        """The object.  Raises `BadSetting`."""
        from importlib import import_module

        try:
            value = import_module(self._module)
            for name in filter(None, self._attribute.split(".")):
                value = getattr(value, name)
        except (ImportError, AttributeError) as error:
            what = f"plug-in {self._name} ({self._module}:{self._attribute})"
            raise BadSetting(what, str(error), "a module that can be imported") from error
        return value


def _from_importlib(group: str) -> dict[str, Callable[[], Any]]:
    from importlib.metadata import entry_points

    return {point.name: _Loader(point.name, point.module, point.attr) for point in entry_points(group=group)}
