import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from cxrtool.commands.fit import networks as step
from cxrtool.commands.fit.lungs import LungOptions
from cxrtool.commands.fit.networks import fit, resolve
from cxrtool.commands.fit.opacities import OpacityOptions
from cxrtool.commands.fit.ribs import RibOptions
from cxrtool.data.reading.images import read_image
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest
from cxrtool.errors import InputError, LeakageError, StoppedError, UsageError
from cxrtool.models.parts import load_network, networks, read_part
from cxrtool.options import declared
from cxrtool.training.image_to_image_options import PRESETS


def add_lungs(folder: Path, every: int = 1) -> None:
    """Give the pictures of a study two bright ellipses, and masks of them to every so many."""
    table = read_table(folder / "manifest.csv")
    y, x = np.mgrid[:64, :72]
    for index, row in enumerate(table.rows):
        inside = np.zeros((64, 72), bool)
        for centre in (20 + index % 4, 50 - index % 3):
            inside |= ((x - centre) / 12) ** 2 + ((y - 32) / 20) ** 2 < 1
        pixels = np.random.default_rng(index).integers(0, 60, inside.shape) + 150 * inside
        cv2.imwrite(str(folder / row["path"]), pixels.astype(np.uint8))
        row["mask"] = ""
        if index % every == 0:
            row["mask"] = str(folder / f"{row['image_id']}_mask.png")
            cv2.imwrite(row["mask"], inside.astype(np.uint8))
        row["path"] = str(folder / row["path"])
    write_manifest(folder / "manifest.csv", [*table.columns, "mask"], table.rows)


KINDS = {"lungs": LungOptions, "opacities": OpacityOptions, "ribs": RibOptions}


@pytest.fixture
def lungs(study):
    add_lungs(study.folder)
    return study


@pytest.fixture
def run(settings, tmp_path, no_pictures):
    torch.set_num_threads(1)

    def call(manifest, out="part", kind="lungs", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in type(settings).__dataclass_fields__}
        told = {
            "size": 64,
            "epochs": 2,
            "batch_size": 8,
            "lr": 0.01,
            "augment": "none",
            "exposure": "none",
            "average": 0.0,
        }
        options, origins = KINDS[kind].build({"manifest": Path(manifest), **told, **changes})
        shared = {"out": tmp_path / out, "cache": tmp_path / "cache", "origins": origins, **shared}
        return fit(options, replace(settings, **shared))

    return call


def files(folder):
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file() and path.name != "run.json"
    }


def test_a_part_learns_lungs_and_tells_what_it_saw(run, lungs, tmp_path):
    header, (row,), title = run(lungs.folder, epochs=14, validation=0.25)
    assert title == "Validation images"
    assert float(row[header.index("mean dice")]) > 0.85
    part = read_part(tmp_path / "part", "lungs")
    assert (part.network, part.form.size) == ("unet", 64)
    assert part.description["figures"]["validation"]["dice"] == pytest.approx(float(row[3]), abs=1e-4)
    seen = read_table(tmp_path / "part" / "fitted_on.csv").rows
    assert {entry["subset"] for entry in seen} == {"train", "validation"}
    by_patient = {}
    for entry in seen:
        by_patient.setdefault(entry["patient_id"], set()).add(entry["subset"])
    assert all(len(subsets) == 1 for subsets in by_patient.values())
    assert len(read_table(tmp_path / "part" / "dice.csv").rows) == sum(
        entry["subset"] == "validation" for entry in seen
    )
    sheet = cv2.imread(str(tmp_path / "part" / "samples.png"))
    assert ((sheet[..., 1] > 150) & (sheet[..., 2] < 100)).any(), "the outline of the mask"
    assert ((sheet[..., 2] > 200) & (sheet[..., 1] < 100)).any(), "the outline of what was found"


def test_the_dice_told_is_the_dice_of_the_part_that_was_saved(run, lungs, tmp_path):
    from cxrtool.imaging.masks import clean
    from cxrtool.imaging.view import lay_back, see

    run(lungs.folder, epochs=6, precision="fp32")
    module, form = load_network(tmp_path / "part", "lungs"), read_part(tmp_path / "part", "lungs").form
    row = read_table(tmp_path / "part" / "dice.csv").rows[0]
    placed = see(read_image(lungs.folder / f"{row['image_id']}.png").pixels, form)
    with torch.inference_mode():
        predict = torch.sigmoid(module(torch.from_numpy(placed.values)[None, None]))[0, 0].numpy()
    found = clean(lay_back(predict, placed, form)) > 0
    truth = read_image(lungs.folder / f"{row['image_id']}_mask.png").pixels > 0
    assert found.shape == truth.shape
    assert float(row["dice"]) == pytest.approx(2 * (found & truth).sum() / (found.sum() + truth.sum()), abs=2e-3)


def test_the_same_call_twice_does_nothing_and_another_one_something(run, lungs, tmp_path, listener):
    run(lungs.folder)
    before = files(tmp_path / "part")
    assert run(lungs.folder) is None
    assert "up to date" in listener.said[-1]
    run(lungs.folder, out="again")
    assert files(tmp_path / "again") == before
    run(lungs.folder, seed=1)
    assert files(tmp_path / "part")["part.safetensors"] != before["part.safetensors"]


def test_images_without_a_mask_are_left_out_with_a_count(run, study, tmp_path, listener):
    add_lungs(study.folder, every=2)
    run(study.folder)
    assert any("12 of 24 images without a lung mask; excluded" in text for text in listener.said)
    assert len(read_table(tmp_path / "part" / "fitted_on.csv").rows) == 12


def test_an_empty_mask_counts(run, lungs, tmp_path):
    for path in lungs.folder.glob("*_mask.png"):
        cv2.imwrite(str(path), np.zeros((64, 72), np.uint8))
    run(lungs.folder, epochs=6, lr=0.03)
    rows = read_table(tmp_path / "part" / "dice.csv").rows
    assert all(float(row["dice"]) == 1.0 for row in rows)


def test_what_cannot_be_read_is_rejected_with_its_reason(run, lungs, tmp_path, listener):
    (lungs.folder / "im003.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    cv2.imwrite(str(lungs.folder / "im005_mask.png"), np.zeros((10, 72), np.uint8))
    (lungs.folder / "im007_mask.png").unlink()
    run(lungs.folder)
    rejects = {Path(row["path"]).name: row["reason"] for row in read_table(tmp_path / "part" / "rejects.csv").rows}
    assert set(rejects) == {"im003.png", "im005.png", "im007.png"}
    assert rejects["im005.png"] == "im005_mask.png: its mask is 72 x 10, its image 72 x 64"
    assert rejects["im007.png"] == "im007_mask.png: no such file"
    assert any("3 of 24 pairs cannot be read" in text for text in listener.warned)
    seen = {row["image_id"] for row in read_table(tmp_path / "part" / "fitted_on.csv").rows}
    assert not seen & {"im003", "im005", "im007"}


def test_folds_are_fitted_each_on_its_own_images_and_summed_up(run, lungs, tmp_path):
    header, rows, title = run(lungs.folder, "run", splits=lungs.splits)
    assert title == "Test images"
    assert [row[0] for row in rows] == [f"r{r}f{f}" for r in range(2) for f in range(3)] + ["all"]
    place = tmp_path / "run"
    for repeat, fold in ((0, 1), (1, 2)):
        folder = place / f"r{repeat}f{fold}"
        read_part(folder, "lungs")
        scored = read_table(folder / "dice.csv").rows
        assert {row["image_id"] for row in scored if row["subset"] == "test"} == set(
            lungs.assigned(repeat, fold, "test")
        )
        seen = {row["image_id"] for row in read_table(folder / "fitted_on.csv").rows}
        assert seen == {*lungs.assigned(repeat, fold, "train"), *lungs.assigned(repeat, fold, "validation")}
    everything = read_table(place / "dice.csv").rows
    tested = [float(row["dice"]) for row in everything if row["subset"] == "test"]
    assert len(tested) == 48
    assert float(rows[-1][header.index("mean dice")]) == pytest.approx(np.mean(tested), abs=1e-4)
    assert float(rows[-1][header.index("lowest")]) == pytest.approx(min(tested), abs=1e-4)
    assert read_table(place / "summary.csv").rows[-1]["fold"] == "all"
    assert (place / "worst.png").exists()
    assert run(lungs.folder, "run", splits=lungs.splits) is None


def test_single_folds_may_be_fitted_one_by_one(run, lungs, tmp_path, listener):
    lines = lungs.splits.read_text().splitlines(keepends=True)
    lungs.splits.write_text("".join(line for line in lines if line.split(",")[1] != "1"))
    whole = run(lungs.folder, "whole", splits=lungs.splits)
    for only in ("r0f1", "r0f0,r0f1"):
        assert run(lungs.folder, "parts", splits=lungs.splits, only=only) is None
    assert "2 of 3 folds are complete" in listener.said[-1]
    assert run(lungs.folder, "parts", splits=lungs.splits) == whole
    for name in ("dice.csv", "summary.csv", "worst.png", "r0f2/part.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_further_images_train_in_every_fold_and_are_never_tested(run, lungs, make_study, tmp_path):
    more = make_study(tmp_path / "more")
    add_lungs(more.folder)
    table = read_table(more.folder / "manifest.csv")
    for row in table.rows:
        # The same pixels would be the same radiograph.
        picture = str(more.folder / row["path"])
        cv2.imwrite(picture, 255 - cv2.imread(picture, cv2.IMREAD_UNCHANGED))
        row.update(image_id=f"x{row['image_id']}", patient_id=f"x{row['patient_id']}", source="drawn")
        row.update({name: str(more.folder / row[name]) for name in ("path", "mask")})
    write_manifest(more.folder / "manifest.csv", table.columns, table.rows)
    run(lungs.folder, "run", splits=lungs.splits, only="r0f0", also=more.folder, balance="source")
    seen = read_table(tmp_path / "run" / "r0f0" / "fitted_on.csv").rows
    assert sum(row["image_id"].startswith("x") for row in seen if row["subset"] == "train") == 24
    assert not any(row["image_id"].startswith("x") for row in seen if row["subset"] == "validation")
    assert not any(row["image_id"].startswith("x") for row in read_table(tmp_path / "run" / "r0f0" / "dice.csv").rows)
    with pytest.raises(InputError, match="'im000' is also listed in"):
        run(lungs.folder, also=lungs.folder)


def test_a_patient_on_two_sides_is_refused(run, lungs, listener):
    text = (
        lungs.splits.read_text()
        .replace("im001,0,0,test", "im001,0,0,train")
        .replace("im001,0,0,validation", "im001,0,0,train")
    )
    lungs.splits.write_text(text.replace("im000,0,0,train", "im000,0,0,test"))
    with pytest.raises(LeakageError, match="im000, im001"):
        run(lungs.folder, "run", splits=lungs.splits)
    run(lungs.folder, "run", splits=lungs.splits, only="r0f0", allow_leakage=True)
    assert any("more than one subset" in text for text in listener.warned)


def test_folds_without_validation_keep_the_last_epoch_and_say_so(run, lungs, tmp_path, listener):
    lungs.splits.write_text(lungs.splits.read_text().replace(",validation", ",train"))
    run(lungs.folder, "run", splits=lungs.splits, only="r0f1")
    assert any("have no validation images, such as r0f1" in text for text in listener.warned)
    assert read_part(tmp_path / "run" / "r0f1", "lungs").description["trained"]["epoch"] == 2
    run(lungs.folder, "other", splits=lungs.splits, only="r0f1", checkpoint="last")
    assert len(listener.warned) == 1


def test_interrupted_it_goes_on_to_the_same_bytes(run, lungs, tmp_path, monkeypatch):
    run(lungs.folder, "straight", epochs=4)
    asked = iter(range(100))
    stop = lambda self: StoppedError("stopped", 130) if next(asked) == 7 else None  # noqa: E731
    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.signals.StopRequest.error", stop)
        with pytest.raises(StoppedError):
            run(lungs.folder, "stopped", epochs=4)
    assert not (tmp_path / "stopped").exists()
    run(lungs.folder, "stopped", epochs=4)
    assert files(tmp_path / "stopped") == files(tmp_path / "straight")


@pytest.mark.parametrize(("network", "invert"), [("rib-unet", False), ("autoencoder", True)])
def test_ribs_are_fitted_from_phantoms_as_they_were_drawn(run, settings, tmp_path, network, invert):
    from cxrtool.commands.phantom import PhantomOptions, phantom

    phantom(PhantomOptions(count=8, size=64), replace(settings, out=tmp_path / "drawn"))
    header, (row,), _ = run(
        tmp_path / "drawn",
        kind="ribs",
        network=network,
        copies=2,
        epochs=2,
        loss="mse",
        lr=0.003,
        validation=0.3,
        size=64,
    )
    assert header[3:] == ["mean mse", "95 % interval", "median", "highest", "mse_before", "ms_ssim", "ms_ssim_before"]
    part = read_part(tmp_path / "part", "ribs")
    assert (part.network, part.form.fit, part.form.invert, part.form.size) == (network, "pad", invert, 64)
    errors = read_table(tmp_path / "part" / "errors.csv").rows
    assert 0 < float(errors[0]["mse_before"]) < 0.01, "ribs are a small part of a picture"
    # At 64 pixels the coarsest scale of MS-SSIM has no room.
    assert errors[0]["ms_ssim"] == ""
    assert row[header.index("ms_ssim")] == "-"
    assert (tmp_path / "part" / "samples.png").exists()


def test_lungs_are_fitted_from_phantoms_as_they_were_drawn(run, settings, tmp_path):
    from cxrtool.commands.phantom import PhantomOptions, phantom

    phantom(PhantomOptions(count=6, size=64, truth="masks"), replace(settings, out=tmp_path / "drawn"))
    assert run(tmp_path / "drawn", epochs=1, validation=0.3)
    with pytest.raises(InputError, match="expected a column 'ribless'"):
        run(tmp_path / "drawn", "ribs", kind="ribs")


def test_a_manifest_without_masks_is_refused(run, study):
    with pytest.raises(InputError, match="expected a column 'mask' with a lung mask for each image"):
        run(study.folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"network": "hearts"}, "--network: expected one of unet, unet-imlab"),
        ({"network": "vgg16"}, "--network: expected one of unet, unet-imlab"),
        ({"loss": "mse"}, "--loss: expected one of bce"),
        ({"exposure": "weak"}, "--exposure: expected one of none, strong"),
        ({"average": 1.0}, "--average"),
        ({"validation": 1.0}, "--validation"),
        ({"copies": 0}, "--copies"),
        ({"only": "r0f0"}, "--only selects folds"),
        ({"opt": "lion"}, "--opt: expected one of"),
        ({"size": 60}, "--size 60: unet cannot take it"),
        ({"checkpoint": "best-accuracy"}, "--checkpoint: expected one of best-loss, last"),
    ],
)
def test_wrong_options_are_told_before_anything_is_decoded(run, lungs, tmp_path, changes, told):
    with pytest.raises(UsageError, match=told):
        run(lungs.folder, **changes)
    assert not (tmp_path / "cache").exists()
    assert not (tmp_path / "part").exists()


def test_presets_are_those_of_the_papers():
    def values(kind, network):
        told, origins = KINDS[kind].build({"manifest": Path(), "network": network})
        assert origins["lr"] == "preset"
        return resolve(told)[0]

    told = values("lungs", "unet-imlab")
    assert told.size == 256
    assert [getattr(told, name) for name in ("opt", "lr", "loss", "batch_size", "epochs", "augment")] == [
        "adam",
        1e-3,
        "bce",
        8,
        100,
        "rotate=10,shift=0.1,zoom=0.2",
    ]
    told = values("lungs", "unet-eduardomineo")
    assert told.size == 512
    assert [getattr(told, name) for name in ("opt", "lr", "loss", "batch_size", "epochs", "dilate")] == [
        "adam",
        1e-5,
        "dice",
        2,
        56,
        15,
    ]
    told = values("ribs", "autoencoder")
    assert told.size == 1024
    names = ("opt", "lr", "sched", "decay_epochs", "decay_rate", "batch_size", "epochs", "copies", "loss")
    assert [getattr(told, name) for name in names] == ["adam", 1e-3, "step", 100, 0.75, 5, 150, 17, "ms-ssim+mse"]
    assert set(PRESETS) == {name for kind in KINDS for name in networks(kind)}
    for kind, options in KINDS.items():
        assert all(set(PRESETS[name]) <= declared(options).keys() for name in networks(kind))


def test_run_json_tells_every_option_and_where_it_came_from(run, lungs, tmp_path):
    run(lungs.folder)
    made = json.loads((tmp_path / "part" / "run.json").read_text())
    assert made["command"] == "fit"
    assert made["options"]["sched"] == {"value": "cosine", "origin": "preset"}
    assert made["counts"]["train"] + made["counts"]["validation"] == 24
    assert made["training"]["parameters"] > 1e5


def test_the_summary_draws_patients_not_images():
    # One patient of many equal images and one of a single other: images would make the interval narrow.
    told = {"patient_id": "a", "repeat": "0", "fold": "0", "subset": "test", "dice": "0.9", "iou": "0.8"}
    rows = [{"image_id": f"a{k}", **told} for k in range(40)]
    rows += [dict(rows[0], image_id=f"b{k}", patient_id=f"b{k}", dice="0.5") for k in range(3)]
    header, (row,) = step.summarise(rows, "lungs", "test", 0)
    low, high = map(float, row[header.index("95 % interval")].split("-"))
    assert (row[1], row[2]) == ("43", "4")
    assert low == 0.5
    assert high > 0.88


def test_a_network_begins_with_the_weights_of_a_part_and_tells_what_that_part_saw(run, lungs, make_study, tmp_path):
    other = make_study(tmp_path / "other")
    add_lungs(other.folder)
    table = read_table(other.folder / "manifest.csv")
    for row in table.rows:
        # The same pixels would be the same radiograph.
        row.update({name: str(other.folder / row[name]) for name in ("path", "mask")})
        cv2.imwrite(row["path"], 255 - cv2.imread(row["path"], cv2.IMREAD_UNCHANGED))
        row.update({name: f"x{row[name]}" for name in ("image_id", "patient_id")})
    write_manifest(other.folder / "manifest.csv", table.columns, table.rows)
    run(lungs.folder, "first", epochs=1, lr=1e-30)
    run(other.folder, "second", epochs=1, lr=1e-30, weights=str(tmp_path / "first"))
    first, second = (load_network(tmp_path / name, "lungs").state_dict() for name in ("first", "second"))
    assert all(torch.allclose(first[name], second[name], atol=1e-20) for name in first)
    seen = [
        {row["image_id"] for row in read_table(tmp_path / name / "fitted_on.csv").rows} for name in ("first", "second")
    ]
    assert seen[0] < seen[1]


def test_a_part_that_saw_the_images_to_be_held_out_is_refused_to_begin_with(run, lungs, tmp_path):
    run(lungs.folder, "first", epochs=1)
    with pytest.raises(LeakageError, match="used in training") as error:
        run(lungs.folder, "second", epochs=1, weights=str(tmp_path / "first"))
    assert "another part" in error.value.hint
    run(lungs.folder, "third", epochs=1, weights=str(tmp_path / "first"), validation=0)


def test_a_part_of_another_network_is_refused_to_begin_with(run, lungs):
    with pytest.raises(InputError, match="found 'unet'") as error:
        run(lungs.folder, network="unet-eduardomineo", weights="default")
    assert "--network unet" in error.value.hint


def test_white_lungs_change_what_is_learned(run, lungs, tmp_path):
    run(lungs.folder, "plain", epochs=1)
    run(lungs.folder, "white", epochs=1, opacify=1.0)
    plain, white = (load_network(tmp_path / name, "lungs").state_dict() for name in ("plain", "white"))
    assert not all(torch.equal(plain[name], white[name]) for name in plain)
    assert json.loads((tmp_path / "white" / "part.json").read_text())["trained"]["opacify"] == 1.0


@pytest.mark.parametrize("given", ["", "reference"])
def test_a_network_does_not_learn_what_segment_found(run, lungs, tmp_path, listener, given):
    """Masks of `segment` have an area beside them; those of the data set are then in `mask_reference`."""
    run(lungs.folder, out="plain", validation=0.25, epochs=1)
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((8, 8), np.uint8))
    manifest = read_manifest(lungs.folder)
    rows = [
        {**row, "mask": str(black), "mask_area": "0.3", "mask_reference": row["mask"] if given else ""}
        for row in manifest.rows
    ]
    write_manifest(tmp_path / "found.csv", [*manifest.columns, "mask_area", "mask_reference"], rows)
    if not given:
        with pytest.raises(InputError, match=r"none of its .* has a lung mask in 'mask'"):
            run(tmp_path / "found.csv", out="found", validation=0.25, epochs=1)
        return
    run(tmp_path / "found.csv", out="found", validation=0.25, epochs=1)
    assert any("`segment` found" in text for text in listener.said)
    assert (tmp_path / "found/dice.csv").read_bytes() == (tmp_path / "plain/dice.csv").read_bytes()
