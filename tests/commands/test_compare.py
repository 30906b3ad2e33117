import io
import json
from pathlib import Path

import numpy as np
import pytest

from cxrtool.commands.compare import CompareOptions, compare, distinct, dump_comparison, find_sources
from cxrtool.data.tables.manifest import read_manifest, read_table
from cxrtool.data.tables.predictions import Predictions, write_predictions
from cxrtool.errors import IncompleteError, InputError, OutputError, UsageError
from cxrtool.flow.settings import Settings


def options(*inputs, **others):
    return CompareOptions(inputs=tuple(map(str, inputs)), resamples=others.pop("resamples", 30), **others)


@pytest.fixture
def two(study, train_study):
    """Two trained runs of one split, of which the second has learned for longer."""
    return train_study(study, "short", only=None, epochs=1), train_study(study, "long", only=None, epochs=2)


@pytest.fixture
def files(make_predictions, tmp_path):
    """Predictions of two models as CSV."""
    paths = []
    for seed, name in enumerate("ab"):
        paths.append(tmp_path / f"{name}.csv")
        write_predictions(paths[-1], make_predictions(60, folds=3, seed=seed, skill=1 + seed))
    return paths


def test_two_runs(two, settings):
    found = compare(options(*two, baseline="short"), settings)
    assert list(found["runs"]) == ["short", "long"]
    made = found["comparisons"][0]
    assert (made["name"], made["against"], made["images"], made["runs"]) == ("long", "short", 24, 6)
    assert (made["methods"]["runs"], made["methods"]["n_train"], made["methods"]["n_test"]) == (6, 12, 8)
    facts = found["runs"]["long"]["facts"]
    assert (facts["model"], facts["epochs"], facts["images"]) == ("covid-xnet", 2, 12)


def test_the_reference_is_chosen_on_the_validation_images_of_the_runs(two, settings):
    found = compare(options(*two), settings)["reference"]
    assert found["chosen"] == "validation"
    accuracy = {}
    for run in two:
        rows = [row for fold in run.glob("r*f*") for row in read_table(fold / "predictions.csv").rows]
        hits = [row["predicted"] == row["label"] for row in rows if row["subset"] == "validation"]
        accuracy[run.name] = np.mean(hits)
    assert found["validation"] == pytest.approx(accuracy)
    assert found["name"] == max(accuracy, key=accuracy.__getitem__)


def test_a_csv_knows_no_facts_and_takes_the_images_fitted_from_the_run_beside_it(two, settings):
    folds = [fold / "predictions.csv" for fold in sorted(two[0].glob("r*f*"))]
    pooled = [f"pooled={path}" for path in folds]
    found = compare(options(two[1], *pooled, baseline="pooled"), settings)
    assert set(found["runs"]["pooled"]["facts"]) == {"path"}
    made = found["comparisons"][0]
    assert made["models"]["p"] is not None
    whole = compare(options(two[1], two[0], baseline=str(two[0])), settings)["comparisons"][0]
    assert made["methods"]["n_train"] == whole["methods"]["n_train"] == 12
    assert made["methods"]["statistic"] == whole["methods"]["statistic"]
    again = compare(options(*(f"again={path}" for path in folds), *pooled, baseline="pooled"), settings)
    reason = again["comparisons"][0]["methods"]["reason"]
    assert reason == "the number of images that again was fitted on is not known; give its RUN folder"


def test_only_images_that_stand_in_a_table_are_compared(two, study, settings, tmp_path, listener):
    rows = [line for line in study.splits.read_text().splitlines() if not line.startswith(("im000,", "im001,"))]
    (tmp_path / "fewer.csv").write_text("\n".join(rows) + "\n")
    found = compare(options(*two, within=tmp_path / "fewer.csv", baseline=str(two[0])), settings)
    everything = compare(options(*two, baseline=str(two[0])), settings)
    runs = [answers["runs"]["long"]["images"] for answers in (everything, found)]
    assert runs[0] - runs[1] == 2
    assert found["comparisons"][0]["images"] == runs[1]
    assert "Rows excluded because they are not listed in fewer.csv" in found["runs"]["long"]["notes"][0]


def test_missing_folds_are_named_or_allowed(two, settings):
    (two[1] / "r0f1" / "predictions.csv").unlink()
    with pytest.raises(IncompleteError, match="missing r0f1"):
        compare(options(*two), settings)
    found = compare(options(*two, partial=True, baseline="short"), settings)
    assert found["comparisons"][0]["differs"].startswith("long lacks 8 test predictions")


def test_what_the_other_was_trained_on_is_no_test_image(study, train_study, two, settings):
    lines = study.splits.read_text().splitlines()
    turned = [line.replace(",0,0,", ",0,X,").replace(",0,1,", ",0,0,").replace(",0,X,", ",0,1,") for line in lines]
    study.splits.write_text("\n".join(turned) + "\n")
    other = train_study(study, "other", only="r0f0", epochs=1) / "r0f0"
    found = compare(options(two[0] / "r0f0", other, baseline=str(two[0] / "r0f0")), settings)
    assert "was trained on 8 test images of the other" in found["comparisons"][0]["reason"]


def test_a_published_table_stands_beside_the_network_of_its_name(two, settings, editable):
    editable(two[0])
    for fold in two[0].glob("r*f*"):
        content = json.loads((fold / "model.json").read_text())
        content["architecture"]["name"] = "resnetv2_101"
        (fold / "model.json").write_text(json.dumps(content))
    found = compare(options(*two, published="makris"), settings)["published"]
    assert [(row["run"], row["name"]) for row in found["rows"]] == [("short", "ResNet152V2")]
    assert "stands in" in found["rows"][0]["stands_in"]
    with pytest.raises(UsageError, match="--published"):
        compare(options(*two, published="nobody"), settings)


def test_names():
    paths = [
        Path("x/vgg16"),
        Path("y/vgg16"),
        Path("densenet"),
        Path("run/r0f1"),
        Path("p/predictions.csv"),
        Path("q.csv"),
    ]
    assert distinct(paths, set()) == ["x/vgg16", "y/vgg16", "densenet", "run/r0f1", "p", "q"]
    assert distinct([Path("a"), Path("a")], set()) == [
        str(Path("a").absolute())[1:],
        str(Path("a").absolute())[1:] + "-2",
    ]
    assert distinct([Path("z/a")], {"a"}) == ["z/a"]


def test_names_that_are_given_and_those_that_are_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=0.1.csv").write_text("")
    sources, baseline = find_sources(options("b=B", "runs/a", "b=C", "lr=0.1.csv", baseline="runs/a"))
    assert {name: list(map(str, paths)) for name, paths in sources.items()} == {
        "b": ["B", "C"],
        "a": ["runs/a"],
        "lr=0.1": ["lr=0.1.csv"],
    }
    assert baseline == "a"
    assert find_sources(options("b=B", "a", baseline="B"))[1] == "b"


def test_the_reference_by_name_by_path_or_beside_the_others(files):
    a, b = files
    assert find_sources(options(a, b, baseline="b"))[1] == "b"
    assert find_sources(options(a, b, baseline=str(b)))[1] == "b"
    assert find_sources(options(a, f"mine={b}", baseline="mine"))[1] == "mine"
    sources, baseline = find_sources(options(b, baseline=str(a)))
    assert (list(sources), baseline) == (["a", "b"], "a")
    with pytest.raises(UsageError, match="--baseline: expected one of a, b, or another run, found 'c'"):
        find_sources(options(a, b, baseline="c"))
    with pytest.raises(UsageError, match="expected two runs or more"):
        find_sources(options())


def test_one_fold_twice_is_no_run(files, settings):
    with pytest.raises(InputError, match="in its 2 files, found some of them twice"):
        compare(options(f"x={files[0]}", f"x={files[1]}"), settings)


def test_the_folder_holds_everything(two, tmp_path):
    out = tmp_path / "out"
    found = compare(options(*two), Settings(out=out))
    assert sorted(path.name for path in out.iterdir()) == [
        "comparison.csv",
        "comparison.json",
        "differences.png",
        "forest.png",
        "manifest.csv",
        "rejects.csv",
        "run.json",
        "seconds.png",
        "tables.md",
    ]
    assert (out / "comparison.json").read_text() == dump_comparison(found)
    text = (out / "tables.md").read_text()
    assert "![forest](forest.png)" in text
    assert "## Difference in accuracy from" in text
    made = json.loads((out / "run.json").read_text())
    assert made["counts"] == {"images": 24, "runs": 2, "comparisons": 1, "rejects": 0}
    manifest = read_manifest(out)
    assert len(manifest) == 24
    assert Path(manifest.rows[0]["path"]).exists()
    for name in ("short", "long"):
        accuracy = found["runs"][name]["overall"]["accuracy"]["value"]
        assert np.mean([float(cell) for cell in manifest.column(f"correct_{name}")]) == pytest.approx(accuracy)


def test_nothing_is_done_twice_and_a_change_is_noticed(files, tmp_path, listener):
    settings = Settings(out=tmp_path / "out", report=listener)
    first = compare(options(*files), settings)
    stamp = (settings.out / "comparison.json").stat().st_mtime_ns
    assert compare(options(*files), settings) == first
    assert listener.said[-1].endswith("up to date, nothing to do")
    assert (settings.out / "comparison.json").stat().st_mtime_ns == stamp
    files[1].write_text(files[1].read_text().replace(",covid,covid,", ",covid,normal,"))
    again = compare(options(*files), settings)
    assert again["runs"]["b"]["overall"]["accuracy"] != first["runs"]["b"]["overall"]["accuracy"]


def test_the_same_command_gives_the_same_bytes(two, tmp_path):
    contents = []
    for name in ("one", "two"):
        compare(options(*two), Settings(out=tmp_path / name))
        contents.append({p.name: p.read_bytes() for p in (tmp_path / name).iterdir() if p.name != "run.json"})
    assert contents[0] == contents[1]


def test_a_foreign_folder_is_left_alone(files, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="expected a new folder"):
        compare(options(*files), Settings(out=tmp_path / "mine"))


def test_a_dry_run_writes_nothing(files, tmp_path, listener):
    assert compare(options(*files), Settings(dry_run=True, report=listener)) == {}
    assert compare(options(*files), Settings(out=tmp_path / "out", dry_run=True, report=listener)) == {}
    assert listener.said == ["would compare a, b", f"would write {tmp_path / 'out'}: it is not there yet"]
    assert not (tmp_path / "out").exists()


def test_what_comes_through_a_pipe_is_compared(files, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(files[0].read_bytes())))
    found = compare(options("-", files[1]), Settings(out=tmp_path / "out"))
    assert found["comparisons"] == compare(options(f"stdin={files[0]}", files[1]), Settings())["comparisons"]
    assert (tmp_path / "out" / "comparison.json").is_file()


def test_labels_in_another_order_are_the_same_models(make_predictions, tmp_path, settings):
    predictions = make_predictions(60)
    write_predictions(tmp_path / "a.csv", predictions)
    turned = Predictions(predictions.classes[::-1], predictions.rows, predictions.probabilities[:, ::-1])
    write_predictions(tmp_path / "b.csv", turned)
    found = compare(options(tmp_path / "a.csv", tmp_path / "b.csv", metric="macro_auc"), settings)
    assert found["comparisons"][0]["difference"]["value"] == 0
    assert found["comparisons"][0]["models"]["p"] == 1
