import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrtool.commands.train import twins as twin_training
from cxrtool.commands.transform import TransformOptions, transform
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, LeakageError
from cxrtool.flow.folder import read_run_file

FOLDS = ("r0f0", "r0f1")
CLASSES = ["covid@covid", "covid@normal", "normal@covid", "normal@normal"]


@pytest.fixture
def generators(tmp_path, study, write_generators):
    return write_generators(tmp_path / "generators", study.splits, read_manifest(study.folder).rows, folds=FOLDS)


def written(study, generators, settings, tmp_path):
    """The twins as `transform` writes them."""
    told = TransformOptions(study.folder, generators, strips=0)
    transform(told, replace(settings, out=tmp_path / "twins", cache=tmp_path / "cache"))
    return replace(study, folder=tmp_path / "twins")


def answers(fold):
    """The predictions but for the path, which is that of a file that only one of the ways writes."""
    return [
        {name: cell for name, cell in row.items() if name != "path"}
        for row in read_table(fold / "predictions.csv").rows
    ]


def files(fold):
    names = [path.relative_to(fold) for path in fold.rglob("*") if path.is_file()]
    own = {"predictions.csv", "run.json", "rejects.csv"}
    found = {str(name): (fold / name).read_bytes() for name in names if name.name not in own}
    description = json.loads(found["model.json"])
    # Twins that were written have a row with their size; the images of this study have none.
    for name in ("shorter_side", "aspect_ratio"):
        description["usual"]["training"]["quantiles"].pop(name, None)
    return {**found, "model.json": description}


@pytest.mark.parametrize("changes", [{"size": 16}, {"size": 20, "augment": "rotate=10,flip=0.5"}])
def test_it_is_what_training_on_written_twins_gives(study, generators, train_study, settings, tmp_path, changes):
    path = study.folder / "im001.png"
    cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED).astype(np.uint16) * 257 + 3)
    (study.folder / "im006.png").write_bytes(b"no picture")
    told = {**changes, "only": "r0f0,r0f1"}
    direct = train_study(study, out="direct", transform=generators, **told)
    after = train_study(written(study, generators, settings, tmp_path), out="after", **told)
    for name in FOLDS:
        assert files(direct / name) == files(after / name)
        assert answers(direct / name) == answers(after / name)


def test_classes_answers_and_what_was_seen(study, generators, train_study):
    run = train_study(study, transform=generators)
    fold = run / "r0f0"
    description = json.loads((fold / "model.json").read_text())
    assert description["classes"] == CLASSES
    assert [entry["step"] for entry in description["chain"]] == ["transform"]
    part = json.loads((generators / "r0f0" / "part.json").read_text())
    assert description["chain"][-1]["part"]["sha256"] == part["sha256"]
    assert sorted(path.name for path in (fold / "parts").glob("*/*")) == [
        "fitted_on.csv",
        "part.json",
        "part.safetensors",
    ]
    found = read_predictions(fold / "predictions.csv")
    assert found.classes == CLASSES
    tested = [row for row in found.rows if row["subset"] == "test"]
    assert len(tested) == 16
    for row in tested:
        assert row["image_id"] == f"{row['parent_id']}_r0f0_{row['generator']}"
        assert row["label"].endswith(f"@{row['generator']}")
        assert row["path"] == str(study.folder / f"{row['parent_id']}.png")
    seen = read_table(fold / "fitted_on.csv").rows
    expected = {(name, subset) for subset in ("train", "validation") for name in study.assigned(0, 0, subset)}
    assert {(row["image_id"], row["subset"]) for row in seen} == expected
    assert len(seen) == len(expected)
    assert all(len(row["sha256"]) == 64 for row in seen)


def test_the_order_of_classes_is_that_in_which_the_generators_were_fitted(
    study, write_generators, train_study, settings, tmp_path
):
    rows = read_manifest(study.folder).rows
    other = write_generators(tmp_path / "g", study.splits, rows, classes=("normal", "covid"))
    direct = train_study(study, out="direct", transform=other)
    after = train_study(written(study, other, settings, tmp_path), out="after")
    for run in (direct, after):
        assert json.loads((run / "r0f0" / "model.json").read_text())["classes"] == [
            "covid@normal",
            "covid@covid",
            "normal@normal",
            "normal@covid",
        ]
    assert files(direct / "r0f0") == files(after / "r0f0")


def test_nothing_is_left_in_the_cache_but_the_radiographs(study, generators, train_study, tmp_path, monkeypatch):
    rooms = []
    original = twin_training.TwinStores._allocate

    def room(self, *rest):
        array = original(self, *rest)
        rooms.append(sorted(path.name for path in (tmp_path / "cache").glob("[!.C]*")))
        return array

    monkeypatch.setattr(twin_training.TwinStores, "_allocate", room)
    train_study(study, transform=generators, size=20, only="r0f0,r0f1")
    assert len(rooms) == 4
    # No name that a kill could leave behind, not even while they are in use.
    assert all(names == rooms[0] and len(names) == 1 for names in rooms)


def test_a_whole_run_closes_and_is_up_to_date(study, generators, train_study, listener, monkeypatch):
    rows = [row for row in read_table(study.splits).rows if row["repeat"] == "0" and row["fold"] in "01"]
    write_table(study.splits, list(rows[0]), rows)
    run = train_study(study, transform=generators, only=None)
    manifest = read_manifest(run)
    assert [row["label"] for row in manifest.rows] == [row["label"] for row in read_manifest(study.folder).rows]
    listener.said.clear()
    monkeypatch.setattr(twin_training.TwinTraining, "prepare", lambda *rest: pytest.fail("done again"))
    train_study(study, transform=generators, only=None)
    assert any("up to date" in text for text in listener.said)
    shown = read_run_file(run)["options"]
    assert shown["transform"]["value"] == str(generators)


def test_a_run_on_written_twins_keeps_the_labels_of_the_radiographs(study, generators, train_study, settings, tmp_path):
    rows = [row for row in read_table(study.splits).rows if row["repeat"] == "0" and row["fold"] == "0"]
    write_table(study.splits, list(rows[0]), rows)
    run = train_study(written(study, generators, settings, tmp_path), only=None)
    assert set(read_manifest(run).column("label")) == {"covid", "normal"}


def test_a_grid_searches_among_twins(study, generators, train_study, tmp_path):
    run = train_study(study, transform=generators, grid=("size=16,20",), size=None)
    made = json.loads((run / "r0f0" / "run.json").read_text())
    assert made["grid"]["tried"] == 2
    assert json.loads((run / "r0f0" / "model.json").read_text())["classes"] == CLASSES
    plain = train_study(study, out="plain", grid=("size=16,20",), size=None)
    names = [sorted(path.name for path in (one / "candidates" / "r0f0").iterdir()) for one in (run, plain)]
    assert not set(names[0]) & set(names[1])


def refused(study, generators, train_study, tmp_path, message, error=InputError, **changes):
    with pytest.raises(error, match=message):
        train_study(study, transform=generators, **changes)
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("r*/model.json"))


def test_what_is_missing_or_unlike_is_told_before_an_image_is_decoded(
    study, generators, train_study, tmp_path, settings
):
    refused(study, generators, train_study, tmp_path, "generators for fold r0f2, found those of r0f0, r0f1", only=None)
    manifest = read_manifest(study.folder)
    for row in manifest.rows:
        row["label"] = row["label"].replace("covid", "asthma")
    write_manifest(study.folder / "other.csv", manifest.columns, manifest.rows)
    message = "expected the classes covid, normal of --transform .*, found asthma, normal"
    refused(replace(study, folder=study.folder / "other.csv"), generators, train_study, tmp_path, message)
    assert not (tmp_path / "cache").exists()
    twins = written(study, generators, settings, tmp_path)
    refused(twins, generators, train_study, tmp_path, "is already the output of a generator")


def test_a_test_image_that_the_generators_have_seen_is_refused(study, generators, train_study, tmp_path):
    table = read_table(generators / "r0f0" / "fitted_on.csv")
    tested = study.assigned(0, 0, "test")[0]
    from cxrtool.imaging.hashing import pixel_sha256

    digest = pixel_sha256(cv2.imread(str(study.folder / f"{tested}.png"), cv2.IMREAD_UNCHANGED))
    write_table(generators / "r0f0" / "fitted_on.csv", table.columns, [*table.rows, {"sha256": digest}])
    message = f"fold r0f0: its generators were fitted on 1 of its 8 test images.*{tested}"
    refused(study, generators, train_study, tmp_path, message, LeakageError)
    train_study(study, transform=generators, only="r0f1")
    # A patient is known before the first image is decoded.
    patient = next(row["patient_id"] for row in read_manifest(study.folder).rows if row["image_id"] == tested)
    write_table(generators / "r0f0" / "fitted_on.csv", table.columns, [*table.rows, {"patient_id": patient}])
    with pytest.raises(LeakageError, match="on 2 of its 8 test images"):
        train_study(study, transform=generators, out="other", cache=tmp_path / "unused")
    assert not (tmp_path / "unused").exists()
    assert not (tmp_path / "other").exists()
    assert (train_study(study, transform=generators, allow_leakage=True, out="leak") / "r0f0").is_dir()


def test_twins_beside_radiographs_are_refused(study, generators, train_study, settings, tmp_path):
    twins = read_manifest(written(study, generators, settings, tmp_path).folder)
    rows = [*twins.rows, *read_manifest(study.folder).rows]
    write_manifest(tmp_path / "both.csv", twins.columns, rows)
    with pytest.raises(InputError, match="expected only twins or no twins, found 'im000_r0f0_covid' and 'im000"):
        train_study(replace(study, folder=tmp_path / "both.csv"))
