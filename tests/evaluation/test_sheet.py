"""Tables in Markdown say what their cells say, whatever classes and runs are called."""

from __future__ import annotations

import pytest

from cxrtool.evaluation.sheet import Sheet, as_markdown, plain


@pytest.mark.parametrize("text", ["p <0.001", "a & b", "0.94 (0.91-0.96)", "COVID-19 [mild]", "x < y", "R&D;"])
def test_usual_text_stays_as_it_is(text):
    assert plain(text) == text.replace("R&D;", "R&amp;D;")


def test_no_cell_is_html_a_link_or_a_second_line():
    evil = "<script>alert(1)</script>"
    sheet = Sheet(evil, [evil, "n"], [["<img src=x>|", "[a](javascript:b)"], ["a\n\n# b", "&lt;i&gt;"]], [evil])
    lines = as_markdown(sheet, f"## {evil}")
    assert len(lines) == 9
    text = "\n".join(lines)
    assert "<script" not in text
    assert "</script" not in text
    assert "<img" not in text
    assert "](" not in text.replace("\\](", "")
    assert "&amp;lt;" in text
    assert "a # b" in text
