import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import numpy as np
import pytest
from PIL import Image

from cxrtool.errors import InputError
from cxrtool.evaluation.tables import Sheet
from cxrtool.reporting.html import LEVELS, MOST_ROWS, TEMPLATE, kinds_of_columns, read_digest, render
from cxrtool.reporting.page import Answer, Figure, Page, Picture, Section

VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Reads a page as a browser would, and notes elements that do not close, ids, and all addresses."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.addresses, self.alts, self.text = [], [], [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        self.ids += [attrs["id"]] if "id" in attrs else []
        self.addresses += [
            attrs[name] for name in ("src", "href", "srcset", "action", "data", "poster") if name in attrs
        ]
        self.links += [attrs["href"]] if tag == "a" else []
        self.alts += [attrs.get("alt")] if tag == "img" else []
        assert not any(name.startswith("on") for name in attrs), "no script"
        assert tag not in ("script", "iframe", "object", "embed", "link")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "drawing.png"
    Image.fromarray(np.full((30, 40), 200, np.uint8)).save(path)
    return path


@pytest.fixture
def page(picture):
    sheet = Sheet("Odd <names>", ["class", "value"], [["a & b", "0.90 (0.80-0.95)"], ["<i>", "-"]], ["note `x<y`"])
    return Page(
        "Title <script>alert(1)</script>",
        "sub & line",
        [("alarm", 'the "border" <b>alone</b>'), ("clear", "nothing")],
        [
            Section(
                "One", ["para <p>", "$ cxrtool train 'a b' --lr 1"], [sheet], [Picture(picture, 'shows "<it>"', True)]
            ),
            Section("One", ["again"], folded=True),
            Section("Where", [], [Sheet("", ["item", "where"], [["1", "One; nowhere"]], [])]),
        ],
        "made <here>",
    )


def test_what_is_told_is_text_and_never_markup(page):
    text = render(page)
    read = Reader(text)
    for told in (
        "Title <script>alert(1)</script>",
        "sub & line",
        'the "border" <b>alone</b>',
        "para <p>",
        "a & b",
        "<i>",
        "made <here>",
        'shows "<it>"',
    ):
        assert told in read.text, told
    assert "<script" not in text.lower()
    assert "<code>x&lt;y</code>" in text
    assert "<code>cxrtool train &#39;a b&#39; --lr 1</code>" in text


def test_the_page_holds_all_that_it_needs(page, picture):
    text = render(page)
    read = Reader(text)
    assert all(address.startswith(("#", "data:image/")) for address in read.addresses)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    assert not re.search(r"url\(|@import|https?:", re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1])
    assert base64.b64encode(picture.read_bytes()).decode() in text
    assert read.alts == ['shows "<it>"']


def test_every_section_has_an_address_of_its_own(page):
    read = Reader(render(page))
    assert len(read.ids) == len(set(read.ids))
    assert all(link[1:] in read.ids for link in read.links)
    # The table of contents, and the cell that names a section.
    assert read.links.count("#one") + read.links.count("#one-2") == 3


def test_levels_are_words(page):
    text = render(Page("T", "", [(level, "why") for level in LEVELS]))
    words = Reader(text).text
    assert all(word in words for word, _ in LEVELS.values())


def test_the_digest_is_found_at_the_start_again(page):
    text = render(page, "0a1b2c")
    assert read_digest(text[:600]) == "0a1b2c"
    assert read_digest(render(page)[:600]) == ""
    assert render(page, "0a1b2c") == text


def test_folded_sections_open_in_print(page):
    text = render(page)
    assert text.count("<details>") == 1
    printed = text[text.index("@media print") :]
    assert "details::details-content { content-visibility: visible" in printed


def test_answers_are_before_everything_and_their_rest_is_folded(page):
    answer = Answer(
        "How <good>", ["a `line`"], [Figure("AUC", "0.90", "(0.80-0.95)")], [("alarm", "shown")], [("warning", "more")]
    )
    text = render(replace(page, marks=(), answers=[answer]))
    read = Reader(text)
    first = text[: text.index("<main")]
    for told in ("How &lt;good&gt;", "a <code>line</code>", "<b>0.90 <span>(0.80-0.95)</span></b><i>AUC</i>"):
        assert told in first, told
    assert "1 more finding of the audit" in first
    assert first.index("shown") < first.index("<details>") < first.index("</b><span>more")
    # The headings of the sections are the table of contents.
    assert "Contents" not in read.text
    assert read.links == ["#main", "#one-2"]


def test_a_table_of_most_of_a_page_may_be_divided_in_print(page):
    long = Sheet("Long", ["a"], [["b"]] * (MOST_ROWS + 1), [])
    text = render(replace(page, sections=[Section("S", (), [long, replace(long, rows=[["b"]])])]))
    assert text.count('<div class="sheet long">') == 1
    assert text.count('<div class="sheet">') == 1


def test_a_page_without_anything_is_a_page_still():
    Reader(render(Page("T", "")))


def test_a_missing_picture_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.png"):
        render(Page("T", "", (), [Section("S", (), (), [Picture(tmp_path / "gone.png", "c")])]))


def test_columns_are_set_by_what_they_hold():
    sheet = Sheet(
        "", ["of", "n", "none", "empty", "word"], [["a", "3 (1.0 %)", "-", "", "PA"], ["b", "-0.1", "-", "", ""]], []
    )
    assert kinds_of_columns(sheet) == ["name", "figure", "figure", "word", "word"]


def test_the_template_travels_with_the_package():
    assert (files("cxrtool.reporting") / TEMPLATE).is_file()
