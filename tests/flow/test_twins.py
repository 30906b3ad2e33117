import json
from dataclasses import replace

import pytest

from cxrtool.commands.transform import TransformOptions, transform
from cxrtool.data.tables.manifest import Manifest, read_manifest, read_table, write_table
from cxrtool.errors import InputError
from cxrtool.flow.twins import GeneratorRun, as_classes, indices_in


@pytest.fixture
def manifest(study):
    return read_manifest(study.folder)


@pytest.fixture
def make(tmp_path, study, manifest, write_generators):
    def call(name="generators", **changes):
        return write_generators(tmp_path / name, study.splits, manifest.rows, **{"folds": ("r0f0", "r1f2"), **changes})

    return call


def test_a_run_and_a_fold_of_one_are_found(make):
    run = make()
    whole = GeneratorRun.find(run, "--generators")
    assert list(whole.folds) == [("0", "0"), ("1", "2")]
    found = whole.load([("1", "2")])
    assert (found[0].name, found[0].classes, found[0].form.size) == ("r1f2", ["covid", "normal"], 16)
    single = GeneratorRun.find(run / "r1f2", "--generators")
    assert list(single.folds) == [("1", "2")]
    assert single.splits == run.absolute() / "splits.csv"
    # A fold that is still being fitted is none yet.
    (run / "r0f0" / "predictions.csv").unlink()
    assert list(GeneratorRun.find(run, "--generators").folds) == [("1", "2")]


def test_a_run_that_fills_is_the_same_and_one_that_is_fitted_anew_is_another(make):
    run = make()
    before = GeneratorRun.find(run, "-").identity()
    (run / "r0f0" / "predictions.csv").unlink()
    assert GeneratorRun.find(run, "-").identity() == before
    files = [path for path in (run / "run.json", *run.glob("r*f*/run.json")) if path.exists()]
    made = {path: json.loads(path.read_text()) for path in files}
    for name in ("started", "run_digest"):
        for path, content in made.items():
            path.write_text(json.dumps({**content, name: "other"}))
        assert GeneratorRun.find(run, "-").identity() != before


@pytest.mark.parametrize(("changes", "what"), [({"size": 20}, "form"), ({"classes": ("covid", "other")}, "classes")])
def test_folds_that_differ_are_refused(make, changes, what):
    run, other = make(), make("other", folds=("r1f2",), **changes)
    (run / "r1f2").rename(run / "old")
    (other / "r1f2").rename(run / "r1f2")
    found = GeneratorRun.find(run, "--generators")
    with pytest.raises(InputError, match=f"expected the same {what} in all folds"):
        found.load([("0", "0"), ("1", "2")])


def test_damaged_generators_are_refused(make):
    run = make()
    weights = run / "r0f0" / "part.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"oops")
    with pytest.raises(InputError, match="damaged"):
        GeneratorRun.find(run, "--generators").load([("0", "0")])


def test_what_generators_were_fitted_on_is_compared_fold_by_fold(make):
    entry = {"step": "match-histogram", "version": 1}
    run = make(chain=[{**entry, "folds": {"r0f0": "1 2", "r1f2": "3 4"}}])
    found = GeneratorRun.find(run, "--generators")
    first, second = found.load([("0", "0"), ("1", "2")])
    found.check_chain(first, [{**entry, "quantiles": "1 2"}], "m")
    found.check_chain(second, [{"step": "prepare", "size": "native"}, {**entry, "quantiles": "3 4"}], "m")
    with pytest.raises(InputError, match="m has been through: match-histogram"):
        found.check_chain(second, [{**entry, "quantiles": "1 2"}], "m")


def test_labels_and_generators_must_agree(make, manifest):
    found = GeneratorRun.find(make(), "--generators")
    fold = found.load([("0", "0")])[0]
    found.check_labels(fold, manifest, exactly=True)
    one = replace(manifest, rows=[row for row in manifest.rows if row["label"] == "covid"])
    found.check_labels(fold, one, exactly=False)
    with pytest.raises(InputError, match=r"expected the classes covid, normal of --generators .*, found covid"):
        found.check_labels(fold, one, exactly=True)


def test_only_the_images_of_a_fold_are_used(study, manifest):
    rows = read_table(study.splits).rows
    placed = {row["image_id"]: row["subset"] for row in rows if (row["repeat"], row["fold"]) == ("0", "1")}
    del placed["im003"]
    manifest.rows[0] |= {"image_id": "im000_r0f1", "parent_id": "im000", "repeat": "0", "fold": "1"}
    manifest.rows[1] |= {"image_id": "im001_r0f0", "parent_id": "im001", "repeat": "0", "fold": "0"}
    assert indices_in(manifest, placed, ("0", "1")) == [0, 2, *range(4, 24)]


def test_a_manifest_of_twins_has_the_classes_of_twins(make, study, manifest, settings, tmp_path, shuffled):
    assert as_classes(manifest) == (manifest, ["covid", "normal"])
    run = make(classes=("normal", "covid"))
    told = TransformOptions(study.folder, run, only="r0f0", strips=0)
    transform(told, replace(settings, out=tmp_path / "twins", cache=tmp_path / "cache"))
    twins = read_manifest(tmp_path / "twins")
    mixed = replace(twins, rows=shuffled(twins.rows))
    learnt, classes = as_classes(mixed)
    assert classes == ["covid@normal", "covid@covid", "normal@normal", "normal@covid"]
    assert [row["label"] for row in learnt.rows] == [f"{row['label']}@{row['generator']}" for row in mixed.rows]
    # Nobody knows the order any more where the pictures were copied away from their folder.
    away = [{**row, "path": f"/elsewhere/{row['image_id']}.png"} for row in twins.rows]
    assert as_classes(Manifest(twins.columns, away))[1] == sorted(classes)
    write_table(tmp_path / "x.csv", twins.columns, away)
