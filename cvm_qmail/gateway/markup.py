"""HTML and SVG that is escaped by construction.

Invariants: `Markup` is made only here, from names in this software's code; any other text becomes a text or an
attribute's value, in which every character with a meaning to a browser is escaped.
"""

from __future__ import annotations

from html import escape


class Markup(str):
    """Complete elements; they are put into another element as they are."""

    __slots__ = ()


def element(name: str, /, *content: str, **attributes: str) -> Markup:
    """An element; a `_` in an attribute's name is a hyphen, and one at its end is left out (``class_``)."""
    return Markup(f"{_start(name, attributes)}{joined(*content)}</{name}>")


def void(name: str, /, **attributes: str) -> Markup:
    """An element that never has content."""
    return Markup(_start(name, attributes))


def joined(*content: str) -> Markup:
    """Elements and texts, one behind the other."""
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in content))


def style(sheet: str) -> Markup:
    """The style sheet; its hash is in the content security policy."""
    return Markup(f"<style>{sheet}</style>")


def document(*content: str) -> bytes:
    """A whole page."""
    return f"<!DOCTYPE html>\n{element('html', *content, lang='en')}\n".encode()


def _start(name: str, attributes: dict[str, str]) -> str:
    written = (f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return f"<{name}{''.join(written)}>"
