import csv
import io
import json

import pytest

from cxrtool.cli.main import load
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.evaluation.comparison.metrics import METRICS
from cxrtool.evaluation.tables import NO_AUDIT
from cxrtool.recipes.published import published_names


@pytest.fixture
def files(make_predictions, tmp_path):
    paths = []
    for seed, name in enumerate(("weak", "strong")):
        paths.append(tmp_path / f"{name}.csv")
        write_predictions(paths[-1], make_predictions(60, folds=3, seed=seed, skill=1 + seed))
    return paths


def test_tables_in_plain_words(cxr, files):
    outcome = cxr("compare", *files, "--baseline", "weak")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "The reference is weak."
    assert lines[2] == NO_AUDIT
    for title in ("Runs", "Each class against the rest", "Difference in accuracy from weak"):
        assert title in lines
    assert max(map(len, lines)) < 180


def test_without_validation_images_the_best_on_test_is_told_to_be_optimistic(cxr, files):
    assert "The best of 2 on the test images is optimistic" in cxr("compare", *files).out.splitlines()[0]


@pytest.mark.parametrize("style", ["csv", "json"])
def test_what_programs_read_holds_nothing_else(cxr, files, style):
    outcome = cxr("compare", *files, "--format", style)
    assert outcome.err.splitlines()[-1] == NO_AUDIT
    if style == "json":
        content = json.loads(outcome.out)
        assert set(content["runs"]) == {"weak", "strong"}
        assert content["comparisons"][0]["models"]["p"] <= 1
    else:
        rows = list(csv.DictReader(io.StringIO(outcome.out)))
        assert {"run", "class", "difference", "test"} == {row["section"] for row in rows}
    assert cxr("compare", *files, "--format", style, "--quiet").err == ""


def test_markdown_and_latex(cxr, files):
    assert "| run | difference | p models |" in cxr("compare", *files, "--format", "md").out
    latex = cxr("compare", *files, "--format", "latex", "--published", "makris").out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == 4
    body = [line for line in latex.splitlines() if line and not line.startswith(("%", "\\"))]
    assert all(line.endswith(r" \\") for line in body)


def test_the_folder_and_the_screen_say_the_same(cxr, files, tmp_path):
    printed = cxr("compare", *files, "--format", "json", "-o", tmp_path / "out", "-q").out
    assert (tmp_path / "out" / "comparison.json").read_text() == printed
    again = cxr("compare", *files, "--format", "json", "-o", tmp_path / "out")
    assert again.out == printed
    assert "up to date, nothing to do" in again.err


def test_the_help_names_every_metric_and_paper():
    shown = {parameter.name: parameter.help for parameter in load("compare").params}
    assert all(metric in shown["metric"] for metric in METRICS)
    assert all(name in shown["published"] for name in published_names())


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "expected two runs or more"),
        (("{0}", "{1}", "--format", "xml"), 2, "--format: expected one of table, md"),
        (("{0}", "{1}", "--metric", "acc"), 2, "--metric: expected one of accuracy"),
        (("{0}", "{1}", "--metric", "auc"), 2, "name the class with --positive CLASS"),
        (("{0}", "{1}", "--positive", "cvid"), 2, "--positive: expected one of covid, normal, pneumonia"),
        (("{0}", "{1}", "--baseline", "best"), 2, "or another run, found 'best'"),
        (("{0}", "{1}", "--published", "paper"), 2, "--published: expected one of"),
        (("{0}", "nowhere"), 1, "nowhere: no such run or file"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(cxr, files, arguments, code, told):
    outcome = cxr("compare", *(argument.format(*files) for argument in arguments))
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert 1 <= len(outcome.err.splitlines()) <= 2
