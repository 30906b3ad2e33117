import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from torch import nn

from cxrtool.cli.main import run as cxrtool
from cxrtool.commands.train import train
from cxrtool.commands.train.options import TrainOptions
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, StrictError, UsageError
from cxrtool.explaining.cam import Cam, GradCam
from cxrtool.explaining.occlusion import Occlusion
from cxrtool.explaining.scoring import EQUAL
from cxrtool.flow.folder import record
from cxrtool.flow.heatmaps import RANDOMISED, TRAINED_ON, ExplainOptions, explain
from cxrtool.flow.heatmaps.energy import compare_beside, in_words, measure_place
from cxrtool.flow.heatmaps.options import METHODS
from cxrtool.flow.heatmaps.scores import FAITHFULNESS, FIGURE, REFERENCE, SCORES
from cxrtool.flow.settings import Settings
from cxrtool.models.description import ModelDescription
from cxrtool.models.network import Network

SIDE = 24


@pytest.fixture(scope="module")
def place(tmp_path_factory, make_masked_study):
    """A study whose masks are the half that tells the class, and a run of two folds of it."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("place")
    study = make_masked_study(folder)
    settings = Settings(cache=folder / "cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(
            study.folder, study.splits, model="covid-xnet", size=32, epochs=8, batch_size=8, augment="none"
        )
        train(told, replace(settings, out=folder / "run"))
    return folder, study


@pytest.fixture
def ask(place, settings, tmp_path):
    """Explain with the run, or another model, and read the manifest."""

    def call(source=None, model="run", out="out", **changes):
        shared = {name: changes.pop(name) for name in list(changes) if name in Settings.__dataclass_fields__}
        told = ExplainOptions(place[0] / model, str(source or place[1].folder), **changes)
        explain(told, replace(settings, **{"out": tmp_path / out, **shared}))
        return {row["image_id"]: row for row in read_manifest(tmp_path / out).rows}

    return call


def subset_of(study, names, place, columns=None):
    manifest = read_manifest(study.folder).subset(names)
    write_manifest(place, columns or manifest.columns, manifest.rows)
    return place


@pytest.mark.parametrize("name", METHODS)
def test_a_map_is_made_by_the_class_of_its_methods_name(name):
    made = METHODS[name].make(Spot().eval(), torch.rand(2, 1, 16, 16), None)
    assert isinstance(made, {"grad-cam": GradCam, "cam": Cam, "occlusion": Occlusion}[name])
    assert made.name == name


def test_each_image_is_explained_by_the_fold_that_tested_it(place, ask, tmp_path):
    folder, study = place
    rows = ask()
    tested = {name: fold for fold in range(2) for name in study.assigned(0, fold, "test")}
    assert {name: (row["repeat"], row["fold"], row["subset"]) for name, row in rows.items()} == {
        name: ("0", str(fold), "test") for name, fold in tested.items()
    }
    for fold in range(2):
        own = read_predictions(folder / "run" / f"r0f{fold}" / "predictions.csv")
        for answer, values in zip(own.rows, own.probabilities, strict=True):
            if answer["subset"] == "test":
                row = rows[answer["image_id"]]
                assert row["predicted"] == row["target"] == answer["predicted"]
                assert float(row["probability"]) == pytest.approx(values.max(), abs=1e-5)
                assert row["label"] == answer["label"]
    assert len(read_table(tmp_path / "out" / "rejects.csv").rows) == 24 - len(tested)


def test_the_manifest_says_where_the_map_looks(place, ask, tmp_path, listener):
    _, study = place
    sources = {row["image_id"]: row for row in read_manifest(study.folder).rows}
    rows = ask()
    for name, row in rows.items():
        assert row["path"] == sources[name]["path"]
        for column in ("patient_id", "severity", "source", "view", "age", "sex", "mask"):
            assert row[column] == sources[name][column]
        values = np.load(tmp_path / "out" / row["map"])
        assert values.dtype == np.float32
        assert values.shape == (SIDE, SIDE + 4)
        assert (tmp_path / "out" / row["overlay"]).is_file()
        if not row["peak_x"]:
            assert "empty map" in row["warning"]
            continue
        assert values[int(row["peak_y"]), int(row["peak_x"])] == values.max()
        mask = cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED) > 0
        assert float(row["energy_inside"]) == pytest.approx(values[mask].sum() / values.sum(), abs=1e-5)
        assert row["peak_inside"] == str(int(mask[int(row["peak_y"]), int(row["peak_x"])]))
        assert float(row["mask_share"]) == pytest.approx(mask.mean(), abs=1e-5)
    told = json.loads((tmp_path / "out" / "run.json").read_text())["explained"]
    known = [float(row["energy_inside"]) for row in rows.values() if row["energy_inside"]]
    assert told["place"]["energy_inside"]["value"] == pytest.approx(np.mean(known), abs=1e-5)
    shares = [float(row["mask_share"]) for row in rows.values() if row["energy_inside"]]
    assert told["place"]["energy_inside"]["mask_share"] == pytest.approx(np.mean(shares), abs=1e-5)
    assert told["layers"] == ["grad-cam of body: 2 x 2 cells, 256 channels"]
    assert any(text.startswith("the maps have 2 x 2 cells, enlarged to the image") for text in listener.warned)
    assert any("of the energy of the maps is inside the masks" in text for text in listener.said)


def test_inside_the_lungs_a_map_is_cut_and_its_figures_are_not(place, ask, tmp_path):
    whole, cut = ask(), ask(out="cut", inside_lungs=True)
    for name, row in whole.items():
        assert {k: v for k, v in row.items() if k != "map"} == {k: v for k, v in cut[name].items() if k != "map"}
        mask = cv2.imread(row["mask"], cv2.IMREAD_UNCHANGED) > 0
        values, inside = (np.load(tmp_path / out / row["map"]) for out in ("out", "cut"))
        assert np.array_equal(inside, values * mask)


def test_images_without_a_mask_are_told(place, ask, tmp_path, listener):
    _, study = place
    names = study.assigned(0, 0, "test")
    manifest = read_manifest(study.folder).subset(names)
    manifest.rows[0]["mask"] = ""
    write_manifest(tmp_path / "some.csv", manifest.columns, manifest.rows)
    rows = ask(tmp_path / "some.csv", inside_lungs=True)
    first, *others = manifest.column("image_id")
    assert "no mask: the whole map is shown" in rows[first]["warning"]
    assert rows[first]["energy_inside"] == rows[first]["peak_inside"] == ""
    assert all("no mask" not in rows[name]["warning"] for name in others)
    assert any(text.startswith(f"1 of {len(names)} images, such as {first}: no mask") for text in listener.warned)
    without = subset_of(study, names, tmp_path / "none.csv", ["image_id", "path", "label"])
    with pytest.raises(InputError, match=r"no image of .* has a mask"):
        ask(without, inside_lungs=True)


def test_the_opposite_class_and_a_named_one(ask):
    predicted, opposite, named = ask(), ask(out="o", target="opposite"), ask(out="n", target="covid")
    for name, row in predicted.items():
        other = {"covid": "normal", "normal": "covid"}[row["predicted"]]
        assert opposite[name]["target"] == other
        assert float(opposite[name]["target_probability"]) == pytest.approx(1 - float(row["probability"]), abs=1e-5)
        assert named[name]["target"] == "covid"
        assert opposite[name]["predicted"] == row["predicted"] == named[name]["predicted"]


def test_sheets_are_made_by_what_came_of_it(ask, tmp_path):
    rows = ask()
    right = sum(row["label"] == row["predicted"] for row in rows.values())
    expected = ({"correct.png"} if right else set()) | ({"wrong.png"} if right < len(rows) else set())
    assert {path.name for path in (tmp_path / "out" / "sheets").iterdir()} == expected
    ask(out="named", target="covid")
    kinds = {
        ("true" if row["label"] == row["predicted"] else "false")
        + ("_positive.png" if row["predicted"] == "covid" else "_negative.png")
        for row in rows.values()
    }
    assert {path.name for path in (tmp_path / "named" / "sheets").iterdir()} == kinds
    ask(out="positive", positive="normal")
    assert len(list((tmp_path / "positive" / "sheets").iterdir())) == len(kinds)
    ask(out="without", sheet=0)
    assert not (tmp_path / "without" / "sheets").exists()


def test_cam_is_grad_cam_times_the_cells_here(ask, tmp_path):
    ask()
    for name, row in ask(out="cam", method="cam").items():
        one, other = (np.load(tmp_path / out / row["map"]) for out in ("out", "cam"))
        np.testing.assert_allclose(one * 4, other, atol=1e-5 * max(other.max(), 1e-9), err_msg=name)


def test_one_scale_for_a_run_shows_a_faint_map_faintly(ask, tmp_path):
    rows = ask(scale="run")
    highest = {name: np.load(tmp_path / "out" / row["map"]).max() for name, row in rows.items()}
    ask(out="each")
    faint = min((name for name in highest if highest[name] > 0), key=highest.get)
    strong = max(highest, key=highest.get)

    def colour(out, name):
        picture = cv2.imread(str(tmp_path / out / "overlays" / f"{name}.png")).astype(int)
        return np.ptp(picture[60:, : picture.shape[1] - 110], axis=2).sum()

    assert colour("out", faint) < colour("each", faint)
    # From zero instead of from its own smallest value, a map can only be shown stronger.
    assert colour("out", strong) >= colour("each", strong) > 0


def test_a_single_model_explains_strangers_and_marks_what_it_was_trained_on(place, ask, tmp_path, listener):
    _, study = place
    rows = ask(model="run/r0f0")
    assert len(rows) == 24
    known = {*study.assigned(0, 0, "train"), *study.assigned(0, 0, "validation")}
    assert {name for name, row in rows.items() if TRAINED_ON in row["warning"]} == known
    assert any(TRAINED_ON in text for text in listener.warned)
    cv2.imwrite(str(tmp_path / "new.png"), np.random.default_rng(9).integers(0, 255, (50, 80), np.uint8))
    new = ask(tmp_path / "new.png", "run/r0f0", "new")["new"]
    assert new["label"] == new["energy_inside"] == ""
    assert np.load(tmp_path / "new" / new["map"]).shape == (50, 80)


def test_a_run_explains_no_strangers(place, ask, tmp_path):
    cv2.imwrite(str(tmp_path / "new.png"), np.zeros((9, 9), np.uint8))
    with pytest.raises(InputError, match="tested none of the 1 image") as caught:
        ask(tmp_path / "new.png")
    assert "r0f0" in caught.value.hint


class Spot(Network):
    """Sees brightness, and nothing else: its maps are the picture."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Identity(), nn.Linear(1, 2)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0], [-1.0]]))
            self.head.bias.zero_()

    def features(self, images):
        return self.body(images)

    def classify(self, features):
        return self.head(features.mean((2, 3)))

    def head_modules(self):
        return [self.head]


@pytest.fixture
def spotter(tmp_path, monkeypatch):
    """A model folder of `Spot`, whose images go through a chain."""

    def call(fit="squash", chain=(), network=None):
        folder = tmp_path / "spot"
        folder.mkdir(exist_ok=True)
        (folder / "model.json").write_text("{}")
        description = {
            "classes": ["bright", "dark"],
            "chain": list(chain),
            "input": {"size": 40, "fit": fit},
            "normalization": {"mean": [0.0], "std": [1.0]},
            "architecture": {"name": "covid-xnet", "classes": 2},
        }
        description = ModelDescription.from_json({"schema": 1, **description}, folder)
        monkeypatch.setattr(
            "cxrtool.training.checkpoint.load_model", lambda folder: ((network or Spot()).eval(), description)
        )
        return folder

    return call


@pytest.fixture
def spots(tmp_path):
    """Pictures of several sizes with one bright spot each, which is their mask."""
    folder = tmp_path / "spots"
    folder.mkdir()
    rows = []
    for k, (height, width, y, x) in enumerate([(80, 80, 20, 60), (120, 80, 90, 20), (60, 200, 30, 130)]):
        pixels = np.zeros((height, width), np.uint8)
        pixels[y - 6 : y + 6, x - 6 : x + 6] = 200
        cv2.imwrite(str(folder / f"{k}.png"), pixels)
        cv2.imwrite(str(folder / f"{k}_mask.png"), pixels)
        rows.append({"image_id": str(k), "path": str(folder / f"{k}.png"), "mask": str(folder / f"{k}_mask.png")})
    write_manifest(folder / "manifest.csv", list(rows[0]), rows)
    return folder


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("chain", [(), [{"step": "prepare", "version": 1, "size": 64, "fit": "pad"}]])
@pytest.mark.parametrize("method", METHODS)
def test_a_map_lies_where_the_picture_is_bright(ask, spotter, spots, fit, chain, method):
    rows = ask(spots, spotter(fit, chain), target="bright", method=method)
    assert len(rows) == 3
    for row in rows.values():
        assert row["peak_inside"] == "1"
        # A spot of four pixels of the network's input spreads when it is enlarged; its area is 3 % of the picture.
        # A covered square of 5 x 5 pixels of the input spreads further.
        least = 5 * float(row["mask_share"]) if method == "occlusion" else 0.5
        assert float(row["energy_inside"]) > least


def test_maps_that_say_nothing_or_are_none_are_told(ask, spotter, spots, listener):
    rows = ask(spots, spotter(), target="dark")
    assert all("empty map: no region of the image supports dark" in row["warning"] for row in rows.values())
    assert all(row["peak_x"] == row["energy_inside"] == "" for row in rows.values())
    assert any(text.startswith("3 of 3 images, such as 0: empty map") for text in listener.warned)
    broken = Spot()
    with torch.no_grad():
        broken.head.weight.fill_(float("inf"))
    with pytest.raises(
        InputError, match="none of the 3 images can be explained; the reason of the last: its map has values that"
    ):
        ask(spots, spotter(network=broken), out="broken")


def test_what_cannot_be_read_is_rejected_and_the_rest_explained(ask, spotter, spots, tmp_path):
    (spots / "1.png").write_bytes(b"no")
    rows = ask(spots, spotter(), target="bright")
    assert sorted(rows) == ["0", "2"]
    assert [Path(row["path"]).name for row in read_table(tmp_path / "out" / "rejects.csv").rows] == ["1.png"]
    with pytest.raises(StrictError):
        ask(spots, spotter(), target="bright", out="strict", strict=True)


def test_images_of_another_chain_are_refused(place, ask, tmp_path):
    _, study = place
    assert (
        cxrtool(
            [
                "prepare",
                str(study.folder / "manifest.csv"),
                "--size",
                "20",
                "--workers",
                "1",
                "-q",
                "-o",
                str(tmp_path / "small"),
            ]
        )
        == 0
    )
    with pytest.raises(InputError, match="has been through: prepare --size 20"):
        ask(tmp_path / "small", "run/r0f0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "covdi"}, "did you mean 'covid'"),
        ({"positive": "norml"}, "did you mean 'normal'"),
        ({"method": "gradcam"}, "--method: expected one of grad-cam, cam"),
        ({"scale": "log"}, "--scale"),
        ({"subset": "train"}, "--subset"),
        ({"layer": "bod"}, "nearest: body"),
        ({"over": "orignal"}, "--over: expected one of input, original"),
        ({"model": "run/r0f0", "subset": "all"}, "can be used only with a run"),
    ],
)
def test_a_wrong_option_is_told_and_leaves_nothing(ask, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        ask(**changes)
    assert not [path for path in tmp_path.iterdir() if "out" in path.name and path.suffix != ".lock"]


def test_it_says_whether_the_maps_depend_on_what_was_learnt(ask, tmp_path, listener):
    rows = ask(check_randomised=True)
    table = read_table(tmp_path / "out" / RANDOMISED).rows
    assert {row["image_id"] for row in table} == set(rows)
    assert len(table) == len(rows) * 6
    assert sum("randomised" in text for text in listener.said) == 2


def test_maps_that_ignore_what_was_learnt_are_found_out(ask, spotter, spots, listener):
    # Whatever is drawn, the maps of this network are the picture itself, or empty.
    class Fixed(Spot):
        def head_modules(self):
            return []

    network = Fixed()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.models.registry.build", lambda architecture: (Fixed(), ""))
        ask(spots, spotter(network=network), target="bright", check_randomised=True)
    assert any("does NOT depend on what the network learned" in text for text in listener.said)


def test_nothing_is_done_twice_and_an_interrupted_run_goes_on(place, ask, tmp_path, listener, monkeypatch):
    ask()
    first = {
        path.relative_to(tmp_path / "out"): path.read_bytes()
        for path in (tmp_path / "out").rglob("*.*")
        if path.name != "run.json"
    }
    ask()
    assert listener.said[-1].endswith("up to date, nothing to do")

    def fail(drawing, chain, max_pixels):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.heatmaps.Explanation.draw", lambda self: fail(None, None, None))
        with pytest.raises(KeyboardInterrupt):
            ask(out="again")
    assert not (tmp_path / "again").exists()
    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.heatmaps.subject.Subject.explain", lambda *_: pytest.fail("asked again"))
        ask(out="again")
    assert any("going on where it stopped, 16 done" in text for text in listener.said)
    second = {
        path.relative_to(tmp_path / "again"): path.read_bytes()
        for path in (tmp_path / "again").rglob("*.*")
        if path.name != "run.json"
    }
    assert second == first


def test_batches_and_workers_change_no_answer(ask, tmp_path):
    one, many = ask(batch_size=1), ask(out="many", batch_size=7, workers=2)
    for name, row in one.items():
        a, b = (np.load(tmp_path / out / row["map"]) for out in ("out", "many"))
        np.testing.assert_allclose(a, b, atol=1e-5 * max(a.max(), 1e-9))
        assert many[name]["predicted"] == row["predicted"]


def test_the_output_is_no_input(place, settings, spotter, spots):
    (spots / "manifest.csv").unlink()
    told = ExplainOptions(spotter(), str(spots), target="bright")
    assert explain(told, replace(settings, out=spots / "out")) == 6
    assert explain(replace(told, scale="run"), replace(settings, out=spots / "out")) == 6


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
def test_over_the_original_a_map_is_led_back_through_all_that_moved_the_picture(
    ask, spotter, spots, tmp_path, fit, monkeypatch
):
    # A chain that cuts around the spot, whose share of what is left is much larger than of the whole.
    def find(pixels, entry):
        lungs = cv2.morphologyEx((pixels > 50).astype(np.uint8) * 255, cv2.MORPH_DILATE, np.ones((9, 9)))
        return lungs, ""

    def here(work, items, **_):
        # A worker process would not know of these lungs.
        return ((item, work(item)) for item in items)

    monkeypatch.setattr("cxrtool.flow.parallel.map_items", here)
    monkeypatch.setattr("cxrtool.flow.heatmaps.map_items", here)
    monkeypatch.setattr("cxrtool.flow.replaying.find_lungs", find)
    monkeypatch.setattr("cxrtool.flow.heatmaps.subject.locate", lambda chain, folder: chain)
    chain = [
        {"step": "prepare", "version": 1, "size": 90, "fit": "pad"},
        {"step": "segment", "version": 1, "use": "crop+apply", "margin": 0.05, "margin_of": "image"},
    ]
    rows = ask(spots, spotter(fit, chain), target="bright", over="original")
    sources = {row["image_id"]: row for row in read_manifest(spots).rows}
    for name, row in rows.items():
        shape = cv2.imread(sources[name]["path"], cv2.IMREAD_UNCHANGED).shape
        values = np.load(tmp_path / "out" / row["map"])
        assert values.shape == shape
        mask = cv2.imread(sources[name]["mask"], cv2.IMREAD_UNCHANGED) > 0
        assert values[int(row["peak_y"]), int(row["peak_x"])] == values.max()
        assert row["peak_inside"] == "1"
        assert float(row["energy_inside"]) == pytest.approx(values[mask].sum() / values.sum(), abs=1e-5)
        for axis in np.indices(shape):
            # Within a pixel of where the spot is, on average.
            assert abs((axis * values).sum() / values.sum() - axis[mask].mean()) < 1
        cut = ask(spots, spotter(fit, chain), out=f"cut{name}", target="bright")[name]
        assert np.load(tmp_path / f"cut{name}" / cut["map"]).size < values.size
    # Without masks of their own the lungs that the chain found are what is measured, at the place of the original.
    bare = read_manifest(spots)
    write_manifest(tmp_path / "bare.csv", ["image_id", "path"], bare.rows)
    found = ask(tmp_path / "bare.csv", spotter(fit, chain), out="bare", target="bright", over="original")
    assert all(row["peak_inside"] == "1" and float(row["energy_inside"]) > 0.9 for row in found.values())


def test_two_folders_are_compared_image_by_image(place, ask, tmp_path, listener):
    ask()
    # The maps of both targets may be alike, so other values are put in their place.
    made = read_manifest(tmp_path / "out")
    for k, row in enumerate(made.rows):
        row["energy_inside"] = row["energy_inside"] and f"{0.2 + 0.01 * k:.3f}"
    write_manifest(tmp_path / "out" / "manifest.csv", made.columns, made.rows)
    record(tmp_path / "out", {"manifest.csv": (tmp_path / "out" / "manifest.csv").read_bytes()})
    rows = {row["image_id"]: row for row in made.rows}
    other = ask(out="other", target="covid", beside=tmp_path / "out")
    told = json.loads((tmp_path / "other" / "run.json").read_text())["explained"]["beside"]
    pairs = [
        (float(row["energy_inside"]), float(rows[name]["energy_inside"]))
        for name, row in other.items()
        if row["energy_inside"] and rows[name]["energy_inside"]
    ]
    assert told["value"] == pytest.approx(np.mean([one - two for one, two in pairs]), abs=1e-5)
    assert (told["images"], told["alone"]) == (len(pairs), len(other) - len(pairs))
    assert told["low"] <= told["value"] <= told["high"]
    assert any(text.startswith("energy inside the masks: ") and "points" in text for text in listener.said)
    assert [text for text in listener.warned if "--target is covid here and predicted there" in text]
    # Both maps stand beside the picture, so there is one panel more.
    for name, row in other.items():
        alone, both = (cv2.imread(str(tmp_path / folder / row["overlay"])).shape[1] for folder in ("out", "other"))
        assert both > alone, name
    same = ask(out="same", target="covid", beside=tmp_path / "other")
    assert same.keys() == rows.keys()
    told = json.loads((tmp_path / "same" / "run.json").read_text())["explained"]["beside"]
    assert (told["value"], told["low"]) == (0.0, None)
    assert "the same in every resample" in told["reason"]
    ask(out="same", target="covid", beside=tmp_path / "other")
    assert listener.said[-1].endswith("up to date, nothing to do")


def test_beside_what_is_no_folder_of_heatmaps(place, ask, tmp_path):
    with pytest.raises(
        InputError, match=r"expected the output folder of `cxrtool explain`, found the output of `train`"
    ):
        ask(beside=place[0] / "run")
    with pytest.raises(InputError, match=r"found no run\.json"):
        ask(beside=tmp_path)


def test_pairs_are_found_by_the_original_and_measured_by_patient():
    ours = [
        {"image_id": f"e{k}", "parent_id": str(k), "patient_id": str(k // 2), "energy_inside": f"{0.5 + k / 100}"}
        for k in range(40)
    ]
    theirs = [{"image_id": str(k), "energy_inside": "0.3" if k else ""} for k in range(50)]
    found = compare_beside(ours, theirs, 0)
    assert found["value"] == pytest.approx(np.mean([0.2 + k / 100 for k in range(1, 40)]))
    assert (found["images"], found["patients"], found["alone"]) == (39, 20, 1)
    # Twenty patients whose means are evenly spread over 0.39.
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 0.1153 / 20**0.5, rel=0.15)
    with pytest.raises(InputError, match="found none of 40"):
        compare_beside(ours, theirs[:1], 0)


def test_the_energy_is_told_by_class_where_there_are_several():
    rows = [
        {"image_id": str(k), "label": "ab"[k % 2], "energy_inside": "0.5" if k % 2 else "0.25", "peak_inside": "1"}
        for k in range(80)
    ]
    energy = measure_place(rows, 0)["energy_inside"]
    assert {label: part["value"] for label, part in energy["by_class"].items()} == {"a": 0.25, "b": 0.5}
    assert in_words(measure_place(rows, 0))[1] == "  by class: a 25.0% (40), b 50.0% (40)"
    assert "by_class" not in measure_place(rows[::2], 0)["energy_inside"]


def test_the_energy_is_averaged_over_images_and_drawn_by_patient():
    rows = [
        {"image_id": str(k), "patient_id": str(k // 2), "energy_inside": f"{(k // 2 % 5) / 10}", "peak_inside": "1"}
        for k in range(100)
    ] + [{"image_id": "x", "patient_id": "y", "energy_inside": "", "peak_inside": ""}]
    found = measure_place(rows, 0)
    energy = found["energy_inside"]
    assert energy["value"] == pytest.approx(0.2)
    assert (energy["images"], energy["patients"]) == (100, 50)
    # The standard error of a mean of 50 patients.
    assert energy["high"] - energy["low"] == pytest.approx(2 * 1.96 * 0.1414 / 50**0.5, rel=0.15)
    assert found["peak_inside"]["value"] == 1.0
    assert in_words(found)[1].startswith(
        "100.0% [92.9%, 100.0%] of the peaks are inside the masks (100 images of 50 patients)"
    )
    assert measure_place(rows[-1:], 0) == {}


ALL_METHODS = ",".join(METHODS)


def cells(row, *names):
    return [float(row[name]) for name in names]


def test_maps_are_scored_against_a_reference_by_each_method(ask, spotter, spots, tmp_path, listener):
    # The spot is a third of its lungs, and its reference is its left half.
    references = tmp_path / "lesions"
    references.mkdir()
    for k in range(2):
        spot = cv2.imread(str(spots / f"{k}.png"), cv2.IMREAD_UNCHANGED) > 0
        lungs = cv2.dilate(spot.astype(np.uint8), np.ones((1, 25))) * 255
        cv2.imwrite(str(spots / f"{k}_mask.png"), lungs)
        left = spot.copy()
        left[:, int(np.flatnonzero(spot.any(0)).mean()) + 1 :] = False
        cv2.imwrite(str(references / f"{k}.png"), left.astype(np.uint16) * 60000)
    cv2.imwrite(str(references / "2.png"), np.zeros((60, 200), np.uint8))
    options = {"target": "bright", "method": ALL_METHODS, "reference": references, "faithfulness": 8}
    rows = ask(spots, spotter("pad"), **options)
    out = tmp_path / "out"
    table = read_table(out / REFERENCE).rows
    scored = [row for row in table if not row["reason"]]
    assert [(row["image_id"], row["method"]) for row in scored] == [(k, name) for k in "01" for name in METHODS]
    assert [(row["image_id"], row["reason"]) for row in table if row["reason"]] == [("2", "nothing in the reference")]
    for row in scored:
        name, first = row["image_id"], row["method"] == "grad-cam"
        values = np.load(out / "maps" / ("" if first else row["method"]) / f"{name}.npy")
        reference = cv2.imread(str(references / f"{name}.png"), cv2.IMREAD_UNCHANGED) > 0
        lungs = cv2.imread(str(spots / f"{name}_mask.png"), cv2.IMREAD_UNCHANGED) > 0
        assert values.shape == reference.shape
        found = cells(row, "reference_share", "energy", "average_precision", "chance_energy", "chance_pointing")
        assert found == pytest.approx(
            [
                reference.mean(),
                values[reference].sum() / values.sum(),
                average_precision_score(reference.ravel(), np.round(values / (EQUAL * values.max())).ravel()),
                reference.sum() / lungs.sum(),
                reference.sum() / lungs.sum(),
            ],
            rel=1e-4,
        )
        assert float(row["energy_inside"]) == pytest.approx(values[lungs].sum() / values.sum(), rel=1e-4)
        assert row["chance_in"] == "lungs"
        # All methods find the bright spot; it is on the lesion only in part.
        assert float(row["energy"]) > float(row["chance_energy"]) * (1 if row["method"] == "occlusion" else 1.2)
        assert float(row["iou"]) > float(row["chance_iou"])
    summary = json.loads((out / SCORES).read_text())
    part = summary["structures"]["lesions"]
    assert (part["images"], part["excluded"], part["chance_in"]) == (2, {"nothing in the reference": 1}, {"lungs": 2})
    for method, means in part["methods"].items():
        own = [row for row in scored if row["method"] == method]
        assert means["energy"]["value"] == pytest.approx(np.mean([float(row["energy"]) for row in own]), rel=1e-4)
        differences = [float(row["energy"]) - float(row["chance_energy"]) for row in own]
        assert means["energy"]["difference"]["value"] == pytest.approx(np.mean(differences), rel=1e-3)
        assert any(text.startswith(f"{method} on lesions: energy ") for text in listener.said)
    # The model sees brightness alone: without the hottest pixels it is sure of nothing.
    for row in read_table(out / FAITHFULNESS).rows:
        deletion, drawn, insertion, other = cells(row, "deletion", "random_deletion", "insertion", "random_insertion")
        assert deletion < drawn
        # The map of occlusion is coarse here: 5 of 40 pixels.
        assert row["method"] == "occlusion" or insertion > other
    assert len(read_table(out / FAITHFULNESS).rows) == 3 * len(METHODS)
    assert cv2.imread(str(out / FIGURE)) is not None
    # The manifest is about the first method, as if there were no other.
    alone = ask(spots, spotter("pad"), target="bright", out="alone")
    assert {name: {**row, "overlay": ""} for name, row in alone.items()} == {
        name: {**row, "overlay": ""} for name, row in rows.items()
    }
    assert not list((tmp_path / "alone").glob("scores*"))
    one, several = (cv2.imread(str(tmp_path / folder / "overlays/0.png")).shape[1] for folder in ("alone", "out"))
    assert several > 1.5 * one


def test_scores_of_an_interrupted_run_are_those_of_one_run(ask, spotter, spots, tmp_path, monkeypatch):
    options = {"target": "bright", "method": "cam,grad-cam", "reference": spots / "manifest.csv", "structure": "mask"}
    model = spotter()
    ask(spots, model, **options)
    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.heatmaps.Explanation.draw", lambda self: pytest.fail("stopped"))
        with pytest.raises(pytest.fail.Exception):
            ask(spots, model, out="again", **options)
    with monkeypatch.context() as patch:
        patch.setattr("cxrtool.flow.heatmaps.subject.Subject.explain", lambda *_: pytest.fail("asked again"))
        ask(spots, model, out="again", **options)
    for name in (REFERENCE, FAITHFULNESS, SCORES, FIGURE):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_reference_of_another_size_is_one_line_and_the_rest_is_scored(ask, spotter, spots, tmp_path, listener):
    masks = tmp_path / "m"
    masks.mkdir()
    for k in (0, 1):
        mask = cv2.imread(str(spots / f"{k}_mask.png"), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(masks / f"{k}.png"), mask if k else mask[:33])
    ask(spots, spotter(), target="bright", reference=masks, faithfulness=0)
    found = json.loads((tmp_path / "out" / SCORES).read_text())["structures"]["m"]
    assert (found["images"], found["excluded"]) == (1, {"cannot be used": 1, "not in the reference": 1})
    text = "1 of 3 images, such as 0: reference of m excluded: it is 80 x 33, its image 80 x 80"
    assert [warned for warned in listener.warned if "reference" in warned] == [text]
    assert any(text.startswith("m: 2 images without scores: ") for text in listener.said)
    assert not (tmp_path / "out" / FAITHFULNESS).exists()


def test_a_reference_for_no_image_is_refused(ask, spotter, spots, tmp_path):
    (tmp_path / "m").mkdir()
    cv2.imwrite(str(tmp_path / "m" / "other.png"), np.full((9, 9), 255, np.uint8))
    with pytest.raises(InputError, match="named like the 3 images, such as 0, 1, 2, found none"):
        ask(spots, spotter(), reference=tmp_path / "m")
    with pytest.raises(UsageError, match="can be used only with --reference"):
        ask(spots, spotter(), structure="mask")
    with pytest.raises(UsageError, match="expected each method once"):
        ask(spots, spotter(), method="cam,cam")
    with pytest.raises(UsageError, match="--scale run: the values of different methods"):
        ask(spots, spotter(), method="cam,grad-cam", scale="run")


def test_a_reference_of_the_originals_is_led_to_the_prepared_images(place, ask, tmp_path):
    # What tells the class is the half that is the mask; here it comes as boxes in the pixels of the originals.
    _, study = place
    rows = read_manifest(study.folder).rows
    boxes = [
        {"file": Path(row["path"]).name, "x": "0" if row["label"] == "covid" else "12", "y": "0", "width": "12"}
        | {"height": str(SIDE)}
        for row in rows
    ]
    (tmp_path / "boxes.csv").write_text(
        "\n".join(["file,x,y,width,height", *(",".join(box.values()) for box in boxes)]) + "\n"
    )
    found = ask(reference=tmp_path / "boxes.csv", faithfulness=0)
    table = {row["image_id"]: row for row in read_table(tmp_path / "out" / REFERENCE).rows}
    for name, row in found.items():
        assert row["energy_inside"] == (table[name]["energy"] if not int(table[name]["empty_map"]) else "")
        assert row["mask_share"] == table[name]["reference_share"]


def test_phantoms_have_their_lesions_as_reference(ask, spotter, tmp_path):
    from cxrtool.commands.phantom import PhantomOptions, phantom

    folder = tmp_path / "phantoms"
    phantom(PhantomOptions(count=6, size=96, classes="covid,normal"), Settings(out=folder, workers=1))
    truth = {Path(row["path"]).stem: row for row in read_table(folder / "truth.csv").rows}
    ask(folder / "images", spotter(), reference=folder / "truth.csv", structure="lesions", faithfulness=0)
    ask(folder / "images", spotter(), out="b", reference=folder / "truth", structure="lesions", faithfulness=0)
    table = read_table(tmp_path / "out" / REFERENCE).rows
    assert table == read_table(tmp_path / "b" / REFERENCE).rows
    assert {row["reason"] for row in table} == {"", "nothing in the reference"}
    for row in table:
        lesions = cv2.imread(str(folder / truth[row["image_id"]]["lesions"]), cv2.IMREAD_UNCHANGED)
        assert bool(row["reason"]) == (not lesions.any())
        if not row["reason"]:
            assert float(row["reference_share"]) == pytest.approx((lesions > 0).mean(), rel=1e-4)
