import csv
import io
import json
import subprocess
import sys

import pytest

from cxrtool.data.tables.predictions import write_predictions
from cxrtool.evaluation.tables import NO_AUDIT


@pytest.fixture
def file(make_predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", make_predictions(90, folds=3))
    return tmp_path / "p.csv"


def test_tables_in_plain_words(cxr, file):
    outcome = cxr("evaluate", file, "--by", "severity,age:0,40")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert lines[0] == "90 images of 45 patients, 3 classes (covid, normal, pneumonia), 3 runs."
    assert "test sampling, trained models fixed" in lines[1]
    assert lines[2] == NO_AUDIT
    for title in ("All images", "Each class against the rest", "Confusion matrix", "By severity", "By age"):
        assert title in lines
    assert max(map(len, lines)) < 180


def test_markdown_and_latex(cxr, file):
    markdown = cxr("evaluate", file, "--format", "md").out
    assert "| metric | covid | normal | pneumonia |" in markdown
    latex = cxr("evaluate", file, "--format", "latex", "--positive", "covid").out
    assert latex.count(r"\begin{tabular}") == latex.count(r"\bottomrule") == latex.count(r"\toprule") == 6
    body = [line for line in latex.splitlines() if line and not line.startswith(("%", "\\"))]
    assert all(line.endswith(r" \\") for line in body)


def test_latex_escapes_names(cxr, make_predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", make_predictions(classes=("a_b", "50 % & more")))
    latex = cxr("evaluate", tmp_path / "p.csv", "--format", "latex").out
    assert r"metric & a\_b & 50 \% \& more \\" in latex


@pytest.mark.parametrize("style", ["csv", "json"])
def test_what_programs_read_holds_nothing_else(cxr, file, style):
    outcome = cxr("evaluate", file, "--format", style, "--by", "source")
    assert outcome.err.splitlines()[-1] == NO_AUDIT
    if style == "json":
        content = json.loads(outcome.out)
        assert content["images"] == 90
        assert set(content["per_group"]["source"]) == {"a", "b"}
    else:
        rows = list(csv.DictReader(io.StringIO(outcome.out)))
        assert rows[0]["metric"] == "accuracy"
        assert {"section", "name", "metric", "value", "low", "high", "method", "n"} <= set(rows[0])
        assert {row["section"] for row in rows} == {"overall", "per_class", "per_run", "source"}
    assert cxr("evaluate", file, "--format", style, "--quiet").err == ""


def test_the_folder_and_the_screen_say_the_same(cxr, file, tmp_path):
    printed = cxr("evaluate", file, "--format", "json", "-o", tmp_path / "out", "-q").out
    assert (tmp_path / "out" / "metrics.json").read_text() == printed
    again = cxr("evaluate", file, "--format", "json", "-o", tmp_path / "out")
    assert again.out == printed
    assert "up to date, nothing to do" in again.err


def test_side_by_side(cxr, file, make_predictions, tmp_path):
    write_predictions(tmp_path / "other.csv", make_predictions(60, seed=1))
    outcome = cxr("evaluate", f"internal={file}", f"external={tmp_path / 'other.csv'}")
    assert outcome.out.splitlines()[0].startswith("internal: 90 images")
    header = next(line for line in outcome.out.splitlines() if line.startswith("metric"))
    assert header.split() == ["metric", "internal", "external"]
    content = json.loads(cxr("evaluate", f"a={file}", f"b={file}", "--format", "json").out)
    assert content["sets"]["a"] == content["sets"]["b"]


def test_through_a_pipe(cxr, file, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(file.read_bytes())))
    assert cxr("evaluate", "-", "--format", "json", "-q").out == cxr("evaluate", file, "--format", "json", "-q").out


def test_counts(cxr, tmp_path):
    (tmp_path / "m.csv").write_text(",normal,covid\nnormal,851,16\ncovid,17,499\n")
    outcome = cxr("evaluate", "--confusion-matrix", tmp_path / "m.csv", "--positive", "covid", "--digits", "4")
    assert outcome.code == 0
    # The operating point further down names the same figures.
    lines = {line.split("  ")[0]: line for line in reversed(outcome.out.splitlines())}
    # The first fold of COVID-XNet: sensitivity 96.71, specificity 98.15, balanced accuracy 97.43.
    assert "0.9815 (0.9702-0.9886)" in lines["sensitivity"]
    assert "0.9671 (0.9479-0.9793)" in lines["sensitivity"]
    assert " 0.9743 " in lines["balanced accuracy"]
    assert cxr("evaluate", "--confusion-matrix", tmp_path / "m.csv", "-o", tmp_path / "out").code == 0
    assert (tmp_path / "out" / "confusion.png").exists()


def test_what_decisions_are_worth_is_printed(cxr, file):
    outcome = cxr("evaluate", file, "--positive", "covid", "--prevalence", "0.01,0.1", "--abstain", "--calibrated")
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    for title in (
        "Operating point: covid against the rest",
        "Least confident images left undecided",
        "Net benefit of acting on covid",
    ):
        assert title in lines
    assert any(line.startswith("PPV where 0.01 are covid") for line in lines)
    stays = "Probabilities are not calibrated (temperature 1) in all 3 runs: the predictions have no validation rows."
    assert stays in lines
    assert max(map(len, lines)) < 180
    content = json.loads(cxr("evaluate", file, "--positive", "covid", "--format", "json").out)
    assert content["operating"][0]["rule"] == "most probable class"


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("{file}", "--format", "xml"), 2, "--format: expected one of table, md"),
        (("{file}", "--positive", "cvid"), 2, "--positive: expected one of covid, normal, pneumonia"),
        (("{file}", "--by", "hospital"), 1, "--by hospital: expected a column of the predictions"),
        (("{file}", "--by", "age:40,0"), 2, "--by age: expected rising numbers"),
        (("{file}", "--sensitivity", "0.95"), 2, "--sensitivity: expected --positive with it"),
        (
            ("{file}", "--sensitivity", "0.95", "--positive", "covid"),
            1,
            "expected 19 validation images of covid or more",
        ),
        (
            ("{file}", "--positive", "covid", "--prevalence", "5"),
            2,
            "--prevalence: expected shares above 0 and below 1",
        ),
        (("{file}", "--subset", "train"), 1, "expected rows with subset 'train', found: test 90"),
        ((), 2, "expected a RUN or predictions as CSV"),
        (("--confusion-matrix", "{file}"), 1, "line 2"),
        (("nowhere",), 1, "nowhere: no such run or file"),
    ],
)
def test_mistakes_are_told_in_a_line_or_two(cxr, file, arguments, code, told):
    outcome = cxr("evaluate", *(argument.format(file=file) for argument in arguments))
    assert (outcome.code, outcome.out) == (code, "")
    assert told in outcome.err
    assert 1 <= len(outcome.err.splitlines()) <= 2


def test_tables_are_made_without_torch_or_scikit_learn(file):
    code = (
        "import sys; from cxrtool.cli.main import run; code = run(['evaluate', sys.argv[1]]);"
        "assert code == 0; found = {'torch', 'sklearn', 'scipy', 'matplotlib'} & set(sys.modules);"
        "assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code, str(file)], check=True, capture_output=True, timeout=60)
