import csv
import io
import json
import re
from types import SimpleNamespace

import pytest

from cxrtool.cli import console
from cxrtool.cli.console import Console, Lines, render, wrapped
from cxrtool.flow.settings import FORMATS, Settings, Silent
from cxrtool.options import declared

COLUMNS = ["class", "images", "note"]
ROWS = [["covid", "112", "50 % & more_of #1"], ["normal|healthy", "7", 'a "quote", é']]


def test_a_table_is_aligned_the_first_column_to_the_left():
    assert render(["a", "count"], [["x", "1"], ["longer", "1234567"]]).splitlines() == [
        "a         count",
        "------  -------",
        "x             1",
        "longer  1234567",
    ]


def test_markdown_escapes_its_bars():
    lines = render(COLUMNS, ROWS, "md", "Table 1").splitlines()
    assert lines[:4] == ["**Table 1**", "", "| class | images | note |", "| --- | ---: | ---: |"]
    assert lines[5].startswith("| normal\\|healthy | 7 |")


def test_latex_escapes_its_marks():
    text = render(COLUMNS, ROWS, "latex")
    assert r"covid & 112 & 50 \% \& more\_of \#1 \\" in text
    assert text.startswith("\\begin{tabular}{lrr}")
    assert (
        render(["a"], [["\\~^{}$"]], "latex").count(r"\textbackslash{}\textasciitilde{}\textasciicircum{}\{\}\$") == 1
    )
    assert r"\textless{}0.001 \textbar{}" in render(["a"], [["<0.001 |"]], "latex")


def test_csv_and_json_give_everything_back():
    assert list(csv.reader(io.StringIO(render(COLUMNS, ROWS, "csv")))) == [COLUMNS, *ROWS]
    assert json.loads(render(COLUMNS, ROWS, "json")) == [dict(zip(COLUMNS, row, strict=True)) for row in ROWS]
    assert "é" in render(COLUMNS, ROWS, "json")


@pytest.mark.parametrize("style", FORMATS)
def test_an_empty_table_is_still_one(style, capsys):
    Console(style, 2, Silent()).table(COLUMNS, [])
    text = capsys.readouterr().out
    assert text.endswith("\n")
    assert "class" in text or json.loads(text) == []


def test_a_format_that_is_none_is_refused(cxr):
    assert tuple(declared(Settings)["style"][1].known()) == FORMATS
    outcome = cxr("doctor", "--format", "xml")
    assert (outcome.code, outcome.out) == (2, "")
    assert "--format: expected one of table, md, latex, csv, json, found 'xml'" in outcome.err


def test_a_table_has_the_format_that_was_asked_for_and_a_message_has_columns(capsys):
    console = Console("md", 2, Silent())
    console.table(["a"], [["x"]], "T")
    console.write("end\n")
    assert capsys.readouterr().out == "**T**\n\n| a |\n| --- |\n| x |\nend\n"
    assert console.aligned(["a"], [["x"]], "T") == "T\na\n-\nx"


class Layout:
    """How an evaluation is laid out, as `evaluation.tables` does it."""

    @staticmethod
    def opening(found):
        return [f"{found} images."]

    @staticmethod
    def sheets(found, digits):
        return [SimpleNamespace(columns=["a"], rows=[[f"{found:.{digits}f}"]], title="All", notes=["noted."])]

    @staticmethod
    def tidy(found):
        return ["a"], [[repr(found)]]

    @staticmethod
    def markdown(found, digits):
        return f"# {found:.{digits}f}\n"


@pytest.mark.parametrize(
    ("style", "out", "told"),
    [
        ("table", "7 images.\n\nAll\na\n-----\n7.000\n  noted.\n", []),
        (
            "latex",
            "% 7 images.\n\n% All\n\\begin{tabular}{l}\n\\toprule\na \\\\\n\\midrule\n7.000 \\\\\n"
            "\\bottomrule\n\\end{tabular}\n% noted.\n",
            [],
        ),
        ("md", "# 7.000\n", []),
        ("csv", "a\n7\n", ["7 images."]),
        ("json", "[7]\n", ["7 images."]),
    ],
)
def test_what_an_evaluation_found_is_for_a_person_or_for_a_program(style, out, told, capsys, listener):
    Console(style, 3, listener).report(7, Layout, lambda found: f"[{found}]\n")
    assert capsys.readouterr().out == out
    assert listener.said == told


def test_messages_go_to_standard_error(capsys):
    report = Lines()
    report.say("one")
    report.warn("two")
    captured = capsys.readouterr()
    assert captured.err == "one\nwarning: two\n"
    assert captured.out == ""


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Lines().progress("reading", 100) as advance:
        for _ in range(50):
            now[0] += 1.0
            advance(2)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["reading: 32 of 100", "reading: 64 of 100", "reading: 96 of 100"]


def test_quiet_progress_says_nothing(capsys):
    with Silent().progress("reading", 3) as advance:
        advance(3)
    assert capsys.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self):
        return True


def put_terminal(monkeypatch):
    """Let standard error be a terminal, and return what is written to it."""
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_on_a_terminal_a_bar_is_drawn_and_removed(monkeypatch):
    terminal = put_terminal(monkeypatch)
    with Lines().progress("reading", 3) as advance:
        advance(3)
    assert "reading" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_a_stage_is_one_line_with_what_it_found(capsys):
    with Lines().stage("[1/2] train") as stage:
        with stage.report.progress("reading", 3) as advance:
            advance(3)
        stage.report.say("a detail")
        stage.found = "accuracy 0.9"
    assert re.fullmatch(r"\[1/2\] train: accuracy 0\.9  \(\d+ s\)\n", capsys.readouterr().err)


def test_on_a_terminal_a_stage_shows_what_runs(monkeypatch):
    terminal = put_terminal(monkeypatch)
    with Lines().stage("[1/2] train") as stage, stage.report.progress("reading", 4) as advance:
        advance(2)
        assert stage.report.bar.tasks[0].percentage == 50
    assert "train" in terminal.getvalue()
    # The live line is removed, and the last line stays.
    assert re.search(r"\[1/2\] train  \(\d+ s\)\n$", terminal.getvalue())


WIDE = (
    ["run", "what it is", "accuracy", "AUC", "specificity"],
    [
        ["covid-xnet", "a small network, trained on enhanced images of five folds", "0.83 (0.79-0.88)", "0.91", "0.99"],
        ["thumbnail", "a regression", "0.94 (0.91-0.96)", "0.98", "-"],
    ],
)


def test_text_is_left_aligned_and_numbers_right():
    first, second = render(*WIDE).splitlines()[2:]
    assert second.startswith("thumbnail   a regression   ")
    assert first.endswith("0.83 (0.79-0.88)  0.91         0.99")
    assert second.endswith("0.94 (0.91-0.96)  0.98            -")


@pytest.mark.parametrize("width", [100, 80, 60, 40, 30])
def test_a_table_keeps_to_the_width_of_the_terminal_and_loses_nothing(width):
    text = render(*WIDE, title="All runs", width=width)
    assert max(map(len, text.splitlines())) <= width
    words = {word for row in [WIDE[0], *WIDE[1]] for cell in row for word in cell.split()}
    assert words <= set(text.split())
    # Every block names its rows.
    assert len(text.split("\n\n")) == text.count("thumbnail")


def test_a_table_that_fits_is_as_in_a_file():
    assert render(*WIDE, width=200) == render(*WIDE)


def test_prose_is_wrapped_at_words_and_paths_stay_whole():
    path = "/a/very/long/folder/of/a/study-with-hyphens/predictions.csv"
    lines = wrapped(f"warning: 12 images cannot be read, each with its reason in {path}", 40).splitlines()
    assert lines[0] == "warning: 12 images cannot be read, each"
    assert all(line.startswith("  ") for line in lines[1:])
    assert any(path in line for line in lines)
    assert wrapped("", 40) == ""


def test_only_a_terminal_gets_wrapped_lines(monkeypatch, capsys):
    text = "word " * 60
    Lines().say(text)
    assert capsys.readouterr().err == text + "\n"
    monkeypatch.setattr(console, "width_of", lambda stream: 50)
    Lines().say(text)
    assert max(map(len, capsys.readouterr().err.splitlines())) <= 50
