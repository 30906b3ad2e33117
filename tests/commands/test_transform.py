import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands import transform as step
from cxrtool.commands.transform import STRIPS, TransformOptions, transform
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.errors import InputError, LeakageError, StoppedError, StrictError, UsageError
from cxrtool.flow.chain import chain_of_manifest
from cxrtool.flow.settings import Settings
from cxrtool.imaging.resize import prepare_mask, prepare_pixels
from cxrtool.models.parts import load_network, read_part

FOLDS = ("r0f0", "r0f1")


@pytest.fixture
def generators(tmp_path, study, write_generators):
    return write_generators(tmp_path / "generators", study.splits, read_manifest(study.folder).rows, folds=FOLDS)


@pytest.fixture
def make(study, generators, settings, tmp_path):
    """Transform the study, or another manifest, and read the manifest of the twins."""

    def call(source=None, out="twins", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told = TransformOptions(source or study.folder, **{"generators": generators, "strips": 0, **changes})
        transform(told, replace(settings, **{"out": tmp_path / out, "cache": tmp_path / "cache", **shared}))
        return read_manifest(tmp_path / out)

    return call


def edit(study, change):
    """Change the rows of the study's manifest."""
    manifest = read_manifest(study.folder)
    rows = [change(dict(row)) for row in manifest.rows]
    write_manifest(study.folder / "manifest.csv", list(rows[0]), rows)


def test_every_image_of_a_fold_has_a_twin_of_every_generator(make, study, generators):
    rows = make().rows
    assert len(rows) == 2 * 2 * 24
    first = rows[:2]
    assert [row["image_id"] for row in first] == ["im000_r0f0_covid", "im000_r0f0_normal"]
    for row in rows:
        name = f"{row['parent_id']}_r{row['repeat']}f{row['fold']}_{row['generator']}"
        assert row["image_id"] == name
        assert row["path"].endswith(f"images/r{row['repeat']}f{row['fold']}/{name}.png")
        assert (row["width"], row["height"]) == ("16", "16")
    given = {row["image_id"]: row for row in read_manifest(study.folder).rows}
    assert all(row["label"] == given[row["parent_id"]]["label"] for row in rows)


def test_a_twin_is_what_its_own_fold_s_generator_makes_rounded_and_never_wrapped(make, generators, study):
    rows = make().rows
    extremes = set()
    for row in rows[:6] + rows[-6:]:
        network = load_network(generators / f"r0f{row['fold']}", "generators").to(memory_format=torch.contiguous_format)
        source = cv2.imread(str(study.folder / f"{row['parent_id']}.png"), cv2.IMREAD_UNCHANGED)
        small = prepare_pixels(source, 16, "squash").astype(np.float32) / 255
        with torch.no_grad():
            made = network(torch.from_numpy(small)[None, None])[network.classes.index(row["generator"])][0].numpy()
        assert made.min() >= 0
        assert made.max() <= 1
        written = cv2.imread(row["path"], cv2.IMREAD_UNCHANGED)
        assert written.dtype == np.uint8
        # OpenCV has blue, the third channel, first.
        assert np.abs(written[..., ::-1] - np.moveaxis(made, 0, -1) * 255).max() <= 0.51
        assert (read_image(row["path"], colour=True).pixels == written[..., ::-1]).all()
        extremes |= {int(written.min()), int(written.max())}
    # What is brightened beyond white stays white.
    assert extremes >= {0, 255}


def test_the_folds_have_generators_of_their_own(make):
    rows = {row["image_id"]: row["path"] for row in make().rows}
    pair = [cv2.imread(rows[f"im000_r0f{fold}_covid"], cv2.IMREAD_UNCHANGED) for fold in "01"]
    assert (pair[0] != pair[1]).any()


def test_sixteen_bits_stay_sixteen_also_beside_eight(make, study):
    path = study.folder / "im001.png"
    eight = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    alone = {row["image_id"]: cv2.imread(row["path"], cv2.IMREAD_UNCHANGED) for row in make(out="alone").rows}
    cv2.imwrite(str(path), eight.astype(np.uint16) * 257 + 3)
    mixed = {row["image_id"]: cv2.imread(row["path"], cv2.IMREAD_UNCHANGED) for row in make(out="mixed").rows}
    for name, pixels in mixed.items():
        if name.startswith("im001"):
            assert pixels.dtype == np.uint16
            # Rounded once less.
            assert np.abs(pixels / 257 - alone[name]).max() < 1.6
            assert (pixels % 257).any()
        else:
            assert (pixels == alone[name]).all()
            assert pixels.dtype == np.uint8


def test_the_digest_stays_that_of_the_radiograph(make, study):
    from cxrtool.imaging.hashing import pixel_sha256

    source = cv2.imread(str(study.folder / "im003.png"), cv2.IMREAD_UNCHANGED)
    found = {row["sha256"] for row in make().rows if row["parent_id"] == "im003"}
    assert found == {pixel_sha256(source)}


def test_masks_follow_and_other_pictures_are_left_out(make, study, listener):
    mask = np.zeros((24, 28), np.uint8)
    mask[:12] = 255
    cv2.imwrite(str(study.folder / "mask.png"), mask)
    names = {"im000": "mask.png", "im001": "gone.png"}
    edit(
        study,
        lambda row: (
            row
            | {
                "mask": str(study.folder / names.get(row["image_id"], "")) * (row["image_id"] in names),
                "ribless": row["path"],
            }
        ),
    )
    manifest = make()
    assert "ribless" not in manifest.columns
    rows = {row["image_id"]: row["mask"] for row in manifest.rows}
    assert len({rows[f"im000_r0f{fold}_{name}"] for fold in "01" for name in ("covid", "normal")}) == 1
    written = cv2.imread(rows["im000_r0f0_covid"], cv2.IMREAD_UNCHANGED)
    assert (written == prepare_mask(mask, 24, 28, 16, "squash")).all()
    assert rows["im001_r0f0_covid"] == rows["im002_r0f0_covid"] == ""
    assert any("1 mask is excluded, such as that of im001" in text for text in listener.warned)


def test_the_chain_tells_the_generators_of_every_fold_and_carries_them_without_the_rest(make, generators, tmp_path):
    manifest = make()
    parts = {name: read_part(generators / name, "generators") for name in FOLDS}
    told = {"step": "transform", "version": 2, "folds": {name: part.identity() for name, part in parts.items()}}
    assert json.loads((tmp_path / "twins" / "run.json").read_text())["chain"] == [told]
    assert chain_of_manifest(manifest) == [told]
    for part in parts.values():
        carried = tmp_path / "twins" / "parts" / f"generators-{part.sha256[:16]}"
        assert sorted(path.name for path in carried.iterdir()) == ["fitted_on.csv", "part.json", "part.safetensors"]


def test_single_folds(make, generators):
    assert {row["fold"] for row in make(only="r0f1").rows} == {"1"}
    alone = make(out="alone", generators=generators / "r0f1").rows
    assert {row["fold"] for row in alone} == {"1"}
    with pytest.raises(UsageError, match="no fold r0f2"):
        make(out="none", only="r0f2")


def test_a_test_image_planted_in_the_fit_is_refused(make, study, generators, tmp_path, listener):
    tested = study.assigned(0, 1, "test")[3]
    table = read_table(generators / "r0f1" / "fitted_on.csv")
    clean = {row["image_id"]: row["sha256"] for row in make(out="clean").rows}
    planted = {"image_id": "other", "subset": "train", "sha256": clean[f"{tested}_r0f1_covid"].upper()}
    write_table(generators / "r0f1" / "fitted_on.csv", table.columns, [*table.rows, planted])
    with pytest.raises(LeakageError, match=f"fold r0f1: .* 1 of its 8 test images.*{tested}") as caught:
        make()
    assert caught.value.exit_code == 4
    assert not (tmp_path / "twins").exists()
    # In the other fold it is no test image.
    assert len(make(only="r0f0").rows) == 48
    assert len(make(allow_leakage=True, force=True).rows) == 96
    assert any(tested in text for text in listener.warned)


def test_a_tested_patient_among_those_of_the_fit_is_refused(make, study, generators):
    tested = study.assigned(0, 0, "test")[0]
    patient = next(row["patient_id"] for row in read_manifest(study.folder).rows if row["image_id"] == tested)
    table = read_table(generators / "r0f0" / "fitted_on.csv")
    write_table(generators / "r0f0" / "fitted_on.csv", table.columns, [*table.rows, {"patient_id": patient.upper()}])
    with pytest.raises(LeakageError, match="2 of its 8 test images"):
        make()


def test_what_cannot_be_read_is_rejected_and_the_rest_goes_on(make, study, tmp_path):
    (study.folder / "im004.png").write_bytes(b"no picture")
    with pytest.raises(StrictError):
        make(strict=True)
    rows = make().rows
    assert len(rows) == 2 * 2 * 23
    (rejected,) = read_table(tmp_path / "twins" / "rejects.csv").rows
    assert rejected["path"].endswith("im004.png")


def test_nothing_is_done_twice_and_a_new_fit_is_noticed(make, generators, listener, monkeypatch):
    make()
    monkeypatch.setattr(step._Work, "run", lambda *rest: pytest.fail("done again"))
    make()
    assert any("up to date" in text for text in listener.said)
    monkeypatch.undo()
    made = json.loads((generators / "run.json").read_text())
    (generators / "run.json").write_text(json.dumps({**made, "started": "2021"}))
    listener.said.clear()
    make()
    assert not any("up to date" in text for text in listener.said)


def test_an_interrupted_command_goes_on_to_the_same_files(make, tmp_path, monkeypatch):
    whole = {row["image_id"]: row["path"] for row in make(out="whole").rows}
    original = step.make_twins

    def stop(settings, fold, store, places, wanted, request):
        for number, item in enumerate(original(settings, fold, store, places, wanted, request)):
            if number == 16:
                raise StoppedError("stopped", 143)
            yield item

    monkeypatch.setattr(step, "make_twins", stop)
    with pytest.raises(StoppedError):
        make()
    assert not (tmp_path / "twins").exists()
    done = []
    monkeypatch.setattr(step, "make_twins", lambda *rest: done.append(len(rest[4])) or original(*rest))
    rows = make().rows
    assert done == [8, 24]
    assert [row["image_id"] for row in rows] == list(whole)
    assert all(Path(row["path"]).read_bytes() == Path(whole[row["image_id"]]).read_bytes() for row in rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: row | {"label": "asthma"}, "expected the classes covid, normal .* found asthma"),
        (lambda row: row | {"image_id": f"x{row['image_id']}"}, "none of its images is in fold r0f0"),
        (lambda row: row | {"generator": "covid", "parent_id": "a"}, "is already the output of a generator"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(make, study, change, message, tmp_path):
    edit(study, change)
    with pytest.raises(InputError, match=message):
        make()
    assert not (tmp_path / "cache").exists()


def test_one_radiograph_twice_in_a_fold_is_refused(make, study):
    edit(study, lambda row: row | {"parent_id": "im000" if row["image_id"] == "im005" else ""})
    rows = read_table(study.splits).rows
    manifest = read_manifest(study.folder)
    manifest.rows[5]["image_id"] = "derived"
    write_manifest(study.folder / "manifest.csv", manifest.columns, manifest.rows)
    assert rows
    with pytest.raises(InputError, match="'im000' and 'derived' are the same radiograph"):
        make()


def test_generators_of_other_images_are_refused(make, study, tmp_path, write_generators):
    chain = [{"step": "prepare", "version": 2, "size": 24, "fit": "squash"}]
    other = write_generators(tmp_path / "o", study.splits, read_manifest(study.folder).rows, chain=chain)
    with pytest.raises(InputError, match=r"unprocessed images; the generators .* fitted on: prepare --size 24"):
        make(generators=other)


@pytest.mark.parametrize("what", ["nothing", "file", "run"])
def test_what_is_no_run_of_generators_is_refused(make, study, tmp_path, what):
    place = tmp_path / "foreign"
    if what == "run":
        place.mkdir()
        (place / "splits.csv").write_bytes(study.splits.read_bytes())
        (place / "r0f0").mkdir()
        (place / "r0f0" / "predictions.csv").write_text("image_id\n")
    if what == "file":
        place.write_text("x")
    with pytest.raises(InputError, match=r"--generators .*: expected a run of generators or a fold of one"):
        make(generators=place)


def test_a_few_are_shown_beside_their_twins(make, tmp_path):
    make(strips=3)
    picture = cv2.imread(str(tmp_path / "twins" / STRIPS), cv2.IMREAD_UNCHANGED)
    assert picture.shape[1] == 3 * 308 + 8
    assert picture.shape[0] > 3 * 300
