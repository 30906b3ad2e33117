import io
import json
from dataclasses import fields, replace

import pytest

from cxrtool.data.tables.manifest import read_manifest, read_table, write_table
from cxrtool.data.tables.predictions import Predictions, write_predictions
from cxrtool.errors import IncompleteError, InputError, OutputError, UsageError
from cxrtool.flow.evaluating import EvaluateOptions, dump_metrics, evaluate, find_sources, read_metrics
from cxrtool.flow.settings import Settings


def part(predictions, repeat, fold):
    kept = [i for i, row in enumerate(predictions.rows) if (row["repeat"], row["fold"]) == (repeat, fold)]
    return Predictions(predictions.classes, [predictions.rows[i] for i in kept], predictions.probabilities[kept])


@pytest.fixture
def run(make_predictions, tmp_path):
    """A run of two repeats of three folds, and its predictions in one file."""
    predictions = make_predictions(90, repeats=2, folds=3)
    folder = tmp_path / "run"
    splits = []
    for repeat, fold in predictions.runs():
        own = part(predictions, repeat, fold)
        (folder / f"r{repeat}f{fold}").mkdir(parents=True)
        write_predictions(folder / f"r{repeat}f{fold}" / "predictions.csv", own)
        splits += [{"image_id": row["image_id"], "repeat": repeat, "fold": fold, "subset": "test"} for row in own.rows]
    write_table(folder / "splits.csv", list(splits[0]), splits)
    write_predictions(tmp_path / "all.csv", predictions)
    return folder


def options(*inputs, **others):
    return EvaluateOptions(inputs=tuple(map(str, inputs)), resamples=others.pop("resamples", 50), **others)


def test_a_run_is_the_sum_of_its_folds(run, tmp_path, settings):
    whole = evaluate(options(run), settings)
    assert whole == evaluate(options(tmp_path / "all.csv"), settings)
    files = sorted(run.glob("r*/predictions.csv"))
    assert whole == evaluate(options(*files), settings)
    assert (whole[""]["runs"], whole[""]["repeats"]) == (6, 2)


def test_missing_folds_are_named_or_allowed(run, settings):
    for name in ("r0f1", "r1f2"):
        (run / name / "predictions.csv").unlink()
    with pytest.raises(IncompleteError, match=r"4 of 6 folds; missing r0f1, r1f2"):
        evaluate(options(run), settings)
    found = evaluate(options(run, partial=True), settings)[""]
    assert found["runs"] == 4
    assert found["notes"][0] == "Only 4 of 6 folds exist."


def test_the_folder_tells_every_option_that_bears_on_it(run, tmp_path, settings):
    told = options(run, within=run, calibrated=False)
    evaluate(told, replace(settings, out=tmp_path / "out", origins={"within": "flag"}))
    shown = json.loads((tmp_path / "out" / "run.json").read_text())["options"]
    assert set(shown) == {entry.name for entry in fields(EvaluateOptions)}
    assert shown["inputs"] == {"value": [str(run)], "origin": "default"}
    assert shown["within"] == {"value": str(run), "origin": "flag"}


def test_a_single_fold(run, settings):
    assert evaluate(options(run / "r0f1"), settings)[""]["images"] == 30


def test_the_same_run_twice_is_no_second_opinion(run, settings):
    first = run / "r0f0" / "predictions.csv"
    with pytest.raises(InputError, match=r"found repeat '0' fold '0' in both") as caught:
        evaluate(options(first, first), settings)
    assert caught.value.hint == (
        "evaluate them side by side, as first=A.csv second=B.csv; or with --together if they differ in the seed alone"
    )


def test_side_by_side(run, tmp_path, settings):
    found = evaluate(options(f"internal={run}", f"external={run / 'r0f0'}"), settings)
    assert list(found) == ["internal", "external"]
    assert found["internal"] == evaluate(options(run), settings)[""]
    assert read_back(found, tmp_path) == found


def read_back(found, tmp_path):
    (tmp_path / "metrics.json").write_text(dump_metrics(found))
    return read_metrics(tmp_path / "metrics.json")


@pytest.mark.parametrize(
    ("inputs", "others", "told"),
    [
        ((), {}, "expected a RUN or predictions as CSV"),
        (("a=x.csv", "y.csv"), {}, "found none for y.csv"),
        (("x.csv",), {"confusion_matrix": "m.csv"}, "cannot be combined with RUN"),
        ((), {"confusion_matrix": "m.csv", "by": "age"}, "cannot be combined with --by"),
    ],
)
def test_options_that_exclude_one_another(inputs, others, told):
    with pytest.raises(UsageError, match=told):
        find_sources(options(*inputs, **others))


def test_a_file_may_have_an_equals_sign_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1.csv").write_text("")
    assert list(find_sources(options("lr=0.1.csv"))) == [""]
    assert list(find_sources(options("lr=0.2.csv"))) == ["lr"]


def test_the_folder_holds_everything(run, tmp_path, listener):
    settings = Settings(out=tmp_path / "out", report=listener)
    found = evaluate(options(run, by="severity,source"), settings)
    names = sorted(path.name for path in settings.out.iterdir())
    assert names == [
        "by_severity.png",
        "by_source.png",
        "confusion.png",
        "manifest.csv",
        "metrics.csv",
        "metrics.json",
        "precision_recall.png",
        "rejects.csv",
        "reliability.png",
        "roc.png",
        "run.json",
        "tables.md",
    ]
    assert read_metrics(settings.out / "metrics.json") == found
    text = (settings.out / "tables.md").read_text()
    assert "## By severity" in text
    assert "![roc](roc.png)" in text
    made = json.loads((settings.out / "run.json").read_text())
    assert made["options"]["by"]["value"] == "severity,source"
    assert made["counts"]["evaluated"] == 90


def test_the_manifest_lists_the_images_and_how_often_each_was_right(run, tmp_path):
    evaluate(options(run), Settings(out=tmp_path / "out"))
    manifest = read_manifest(tmp_path / "out")
    assert len(manifest) == 90
    assert manifest.rows[0]["path"] == "/nowhere/im0000.png"
    assert set(manifest.column("correct")) <= {"0", "0.5", "1"}
    accuracy = read_metrics(tmp_path / "out" / "metrics.json")[""]["overall"]["accuracy"]["value"]
    assert sum(map(float, manifest.column("correct"))) / 90 == pytest.approx(accuracy)


def test_nothing_is_done_twice(run, tmp_path, listener):
    settings = Settings(out=tmp_path / "out", report=listener)
    first = evaluate(options(run), settings)
    stamp = (tmp_path / "out" / "metrics.json").stat().st_mtime_ns
    assert evaluate(options(run), settings) == first
    assert listener.said[-1].endswith("up to date, nothing to do")
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns == stamp
    evaluate(options(run, positive="covid"), settings)
    assert (tmp_path / "out" / "metrics.json").stat().st_mtime_ns != stamp


def test_a_changed_fold_is_noticed(run, tmp_path):
    settings = Settings(out=tmp_path / "out")
    first = evaluate(options(run), settings)
    file = run / "r1f0" / "predictions.csv"
    file.write_text(file.read_text().replace(",covid,covid,", ",covid,normal,"))
    again = evaluate(options(run), settings)
    assert again[""]["overall"]["accuracy"]["value"] < first[""]["overall"]["accuracy"]["value"]


def test_the_same_command_gives_the_same_bytes(run, tmp_path):
    contents = []
    for name in ("one", "two"):
        evaluate(options(run, by="source"), Settings(out=tmp_path / name))
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.name != "run.json"})
    assert contents[0] == contents[1]


def test_a_foreign_folder_is_left_alone(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="expected a new folder"):
        evaluate(options(run), Settings(out=tmp_path / "mine"))
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_each_of_several_evaluations_has_its_pictures(run, tmp_path):
    settings = Settings(out=tmp_path / "out")
    evaluate(options(f"internal={run}", f"external={run / 'r0f0'}"), settings)
    assert (settings.out / "internal" / "roc.png").exists()
    assert (settings.out / "external" / "roc.png").exists()
    assert "](external/roc.png)" in (settings.out / "tables.md").read_text()
    ids = read_manifest(settings.out).column("image_id")
    assert len(ids) == 90 + 30
    assert ids[0] == "internal-im0000"


def test_counts_alone(tmp_path, settings):
    (tmp_path / "m.csv").write_text("true,normal,covid\nnormal,80,20\ncovid,10,90\n")
    found = evaluate(EvaluateOptions(confusion_matrix=tmp_path / "m.csv", positive="covid"), settings)[""]
    assert found["per_class"]["covid"]["sensitivity"]["value"] == 0.9
    assert found["positive"] == "covid"
    out = Settings(out=tmp_path / "out")
    assert evaluate(EvaluateOptions(confusion_matrix=tmp_path / "m.csv"), out)[""]["confusion"] == [[80, 20], [10, 90]]
    assert (tmp_path / "out" / "confusion.png").exists()
    assert len(read_manifest(tmp_path / "out")) == 0


def test_a_dry_run_writes_nothing(run, tmp_path, listener):
    assert evaluate(options(run), Settings(out=tmp_path / "out", dry_run=True, report=listener)) == {}
    assert evaluate(options(run), Settings(dry_run=True, report=listener)) == {}
    assert listener.said == [f"would write {tmp_path / 'out'}: it is not there yet", f"would evaluate {run}"]
    assert not (tmp_path / "out").exists()


def test_what_comes_through_a_pipe_is_evaluated_once_for_its_content(run, tmp_path, monkeypatch, listener):
    monkeypatch.setattr("cxrtool.evaluation.plots.curves.draw_scores", lambda scores, summary, folder: [])
    table = (run / "r0f0" / "predictions.csv").read_bytes()
    settings = Settings(out=tmp_path / "out", report=listener)
    for content, state in ((table, False), (table, True), (table.replace(b"test", b"holdout", 1), False)):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        before = len(listener.said)
        assert evaluate(options("-"), settings)[""]["runs"] == 1
        assert any("up to date" in text for text in listener.said[before:]) is state


def test_how_the_folds_trained_is_averaged_where_they_tell(run, tmp_path, monkeypatch):
    monkeypatch.setattr("cxrtool.evaluation.plots.curves.draw_scores", lambda scores, summary, folder: [])
    for place, fold in enumerate(sorted(run.glob("r*f*"))):
        (fold / "history.csv").write_text(
            "epoch,lr,train_loss,train_accuracy,validation_loss,validation_accuracy\n"
            f"1,0.1,{place},0.5,1,0.{place}\n2,0.1,0,0.5,1,0.9\n"
        )
    evaluate(options(run), Settings(out=tmp_path / "out"))
    rows = read_table(tmp_path / "out" / "repetitions.csv").rows
    assert [row["runs"] for row in rows] == ["6", "6"]
    assert float(rows[0]["train_loss_mean"]) == 2.5
    assert float(rows[0]["train_loss_sd"]) == pytest.approx(3.5**0.5)
    assert "![repetitions](repetitions.png)" in (tmp_path / "out" / "tables.md").read_text()
    assert (tmp_path / "out" / "repetitions.png").stat().st_size > 10_000
    best = json.loads((tmp_path / "out" / "metrics.json").read_text())["history"]["best"]["validation"]
    assert (best["epoch"], best["value"], best["own_epoch"]) == (2, pytest.approx(0.9), 2)
    table = (tmp_path / "out" / "tables.md").read_text()
    assert "## Training curves, 6 runs" in table
    assert "| validation | 0.9000 ± 0.0000 | 2 | 0.9000 ± 0.0000 | 2.0 ± 0.0 |" in table
    # Another history is another result, even where the predictions are the same.
    (run / "r0f0" / "history.csv").write_text((run / "r1f0" / "history.csv").read_text() + "3,0.1,0,0.5,1,0.9\n")
    evaluate(options(run), Settings(out=tmp_path / "out"))
    assert len(read_table(tmp_path / "out" / "repetitions.csv").rows) == 3
    # A single fold has nothing to average.
    evaluate(options(run / "r0f1"), Settings(out=tmp_path / "one"))
    assert not (tmp_path / "one" / "repetitions.csv").exists()
    assert json.loads((tmp_path / "one" / "metrics.json").read_text())["history"] is None


def test_abstentions_are_evaluated(run, settings):
    file = run / "r1f0" / "predictions.csv"
    file.write_text(file.read_text().replace(",covid,covid,", ",covid,inconclusive,"))
    found = evaluate(options(run), settings)[""]
    assert 0.8 < found["overall"]["coverage"]["value"] < 1
    assert any("are inconclusive" in note for note in found["notes"])
