"""Markup: what is not ours is text."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pages import Seen

from cvm_qmail.gateway.markup import Markup, document, element, joined, style, void


def test_text_is_escaped_and_markup_is_not() -> None:
    inner = element("b", "<i>&\"'")
    assert inner == "<b>&lt;i&gt;&amp;&quot;&#x27;</b>"
    assert joined("<", inner) == f"&lt;{inner}"
    assert isinstance(joined("<"), Markup)
    assert element("p", inner) == f"<p>{inner}</p>"


def test_attributes_are_escaped_and_named_as_html_names_them() -> None:
    assert void("input", value='"><script>', class_="a", aria_hidden="true", for_="x", name="n") == (
        '<input value="&quot;&gt;&lt;script&gt;" class="a" aria-hidden="true" for="x" name="n">'
    )


def test_a_style_sheet_stays_as_it_is() -> None:
    assert document(style("a > b {}")) == b'<!DOCTYPE html>\n<html lang="en"><style>a > b {}</style></html>\n'


@given(st.text(st.characters(min_codepoint=32, exclude_categories=["Cs"])))
def test_any_text_comes_back_as_text(text: str) -> None:
    seen = Seen(element("p", text, title=text))
    assert seen.tags == ["p"]
    assert seen.attributes == [("title", text)]
    assert seen.text == text
