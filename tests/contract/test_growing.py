"""A folder that changed costs what changed: the rest is taken over, and the result is that of a run from nothing."""

import csv
import json
import os
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxrtool.data.tables.manifest import read_manifest

IMAGES = 5
COMMON = ("--workers", "1")
STEPS = {
    "prepare": "prepare raw/table.csv --size 48",
    "segment": "segment prepared --crop --batch-size 4 --threads 1",
    "enhance": "enhance prepared --steps clahe",
    "enhance to a reference": "enhance prepared --steps match-histogram,clahe --reference first.png",
    "enhance to a chosen reference": "enhance prepared --steps clahe,match-histogram",
    "enhance fold by fold": "enhance prepared --steps clahe,match-histogram --splits splits.csv",
    "enhance with ribs": "enhance prepared --steps suppress-ribs,match-histogram",
    "transform": "transform prepared --generators generators --allow-leakage --threads 1",
    "predict": "predict model raw --allow-leakage --threads 1",
}
CHANGED = {
    "prepare": ("--size", "40"),
    "segment": ("--margin", "0.2"),
    "enhance": ("--clahe-clip", "3"),
    "transform": ("--only", "r0f0"),
    "predict": ("--tta",),
}


def draw(path, seed):
    """A chest whose histogram differs from that of others."""
    rng = np.random.default_rng(seed)
    pixels = np.full((96, 88), 180, np.uint8)
    for way in (-1, 1):
        cv2.ellipse(pixels, (44 + way * 20, 46), (12, 28 - seed % 5), 0, 0, 360, 60 + 4 * seed, -1)
    cv2.imwrite(str(path), np.clip(pixels + rng.normal(0, 4 + seed, pixels.shape), 0, 255).astype(np.uint8))


def write_table_of(raw, names, labels=()):
    with (raw / "table.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "patient_id"])
        for k, name in enumerate(names):
            writer.writerow([name, dict(labels).get(name, ("covid", "normal")[k % 2]), f"p{k}"])


def tree(out):
    """Every file but what tells the time; of `run.json` what does not."""
    found = {}
    for path in sorted(out.rglob("*") if out.is_dir() else out.parent.glob("*answers*")):
        name = path.relative_to(out if out.is_dir() else out.parent).as_posix()
        if path.name.endswith("run.json"):
            made = json.loads(path.read_text())
            found[name] = {key: made[key] for key in ("digest", "counts", "chain", "files") if key in made}
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory, make_study, write_generators):
    """A run and generators of two folds, and the splits that fit them."""
    from cxrtool.commands.train import train
    from cxrtool.commands.train.options import TrainOptions
    from cxrtool.flow.settings import Settings

    folder = tmp_path_factory.mktemp("models")
    study = make_study(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cxrtool.training.curves.draw_history", lambda path, history, title: path.write_bytes(b"png"))
        told = TrainOptions(study.folder, study.splits, model="covid-xnet", size=16, epochs=1, only="r0f0")
        train(told, Settings(out=folder / "run", cache=folder / "cache"))
    return folder


class Place:
    """A folder with raw images, prepared ones, splits, generators, and a call of one step."""

    def __init__(self, folder, cxr, step, models, write_generators):
        self.folder, self.cxr, self.step = folder, cxr, step
        self.raw = folder / "raw"
        self.raw.mkdir()
        self.names = [f"im{k}.png" for k in range(IMAGES)]
        for k, name in enumerate([*self.names, "new.png", "other.png"]):
            draw((self.raw if k < IMAGES else folder) / name, k)
        draw(folder / "first.png", 3)
        write_table_of(self.raw, self.names)
        with (folder / "splits.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["image_id", "repeat", "fold", "subset"])
            for fold in range(2):
                # The references are among the first three, whatever is added.
                subsets = ["train", "train", "train", "test", "validation", "test", "test", "test"]
                names = [*(f"im{k}" for k in range(IMAGES)), "new", "renamed", "other"]
                writer.writerows([name, 0, fold, subset] for name, subset in zip(names, subsets, strict=True))
        if step == "predict":
            shutil.copytree(models / "run" / "r0f0", folder / "model")
        self.prepare()
        if step == "transform":
            rows = read_manifest(folder / "prepared").rows
            write_generators(
                folder / "generators", folder / "splits.csv", rows, folds=("r0f0", "r0f1"), chain=self.chain()
            )

    def chain(self):
        return json.loads((self.folder / "prepared" / "run.json").read_text())["chain"]

    def prepare(self):
        if self.step != "prepare":
            done = self.cxr("prepare", self.raw / "table.csv", "--size", "48", "-o", self.folder / "prepared", *COMMON)
            assert done.code == 0, done.err

    def call(self, out="out", *more):
        words = STEPS[self.step].split()
        files = ("prepared", "raw", "raw/table.csv", "splits.csv", "first.png", "generators", "model")
        words = [str(self.folder / word) if word in files else word for word in words]
        out = self.folder / out / "answers.csv" if words[0] == "predict" else self.folder / out
        cached = ("--cache", self.folder / "cache") if words[0] == "transform" else ()
        done = self.cxr(*words, *COMMON, *cached, *more, "-o", out)
        assert done.code == 0, done.err
        return out, done

    def taken(self, done):
        """How many items were taken over, as the message has it."""
        found = re.search(r"(\d+) of (\d+) .* taken over unchanged", done.err)
        return int(found[1]) if found else 0


@pytest.fixture
def place(tmp_path, cxr, request, models, write_generators):
    return Place(tmp_path, cxr, request.param, models, write_generators)


def each(*steps):
    slow = {"enhance with ribs": pytest.mark.slow}
    named = [pytest.param(step, marks=slow.get(step, ())) for step in steps or STEPS]
    return pytest.mark.parametrize("place", named, indirect=True)


def same_as_from_nothing(place, out, *more):
    clean, _ = place.call("clean", *more)
    assert tree(out) == tree(clean)
    shutil.rmtree(clean if clean.is_dir() else clean.parent)


@each()
def test_a_folder_that_changes_costs_its_changes(place):
    per = 2 if place.step == "transform" else 1
    out, done = place.call()
    assert place.taken(done) == 0
    # An image is added.
    shutil.copy(place.folder / "new.png", place.raw / "new.png")
    names = [*place.names[:2], "new.png", *place.names[2:]]
    write_table_of(place.raw, names)
    place.prepare()
    out, done = place.call()
    assert place.taken(done) == per * IMAGES
    same_as_from_nothing(place, out)
    # One is removed, one is relabelled, one has other pixels, and one another name.
    names = [*place.names[:3], "new.png", "renamed.png"]
    (place.raw / "im4.png").rename(place.raw / "renamed.png")
    draw(place.raw / "new.png", 9)
    write_table_of(place.raw, names, [("im1.png", "covid")])
    place.prepare()
    out, done = place.call()
    # `predict` reads the folder, where an image that the table dropped still is.
    assert place.taken(done) == (4 if place.step == "predict" else per * 3)
    same_as_from_nothing(place, out)


@each("prepare", "segment", "enhance", "transform", "predict")
def test_another_option_takes_over_nothing(place):
    place.call()
    more = CHANGED[place.step]
    out, done = place.call("out", *more)
    assert place.taken(done) == 0
    same_as_from_nothing(place, out, *more)


@each("prepare", "segment", "enhance", "enhance fold by fold")
def test_what_was_damaged_is_made_again_even_where_size_and_time_are_the_same(place):
    out, _ = place.call()
    path = next(path for path in sorted(out.rglob("*.png")) if "im1" in path.name)
    status, data = path.stat(), bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    shutil.copy(place.folder / "new.png", place.raw / "new.png")
    write_table_of(place.raw, [*place.names, "new.png"])
    place.prepare()
    out, done = place.call()
    assert place.taken(done) == IMAGES - 1
    same_as_from_nothing(place, out)


@each("enhance", "predict")
def test_a_journal_that_was_changed_is_not_believed(place):
    out, _ = place.call()
    kept = out / "journal.jsonl" if out.is_dir() else out.parent / "answers.journal.jsonl"
    kept.write_text(kept.read_text().replace("im1", "im2"))
    shutil.copy(place.folder / "new.png", place.raw / "new.png")
    write_table_of(place.raw, [*place.names, "new.png"])
    place.prepare()
    out, done = place.call()
    assert place.taken(done) == 0
    same_as_from_nothing(place, out)


@each("enhance", "segment", "predict")
def test_force_takes_over_nothing(place):
    place.call()
    out, done = place.call("out", "--force")
    assert place.taken(done) == 0
    same_as_from_nothing(place, out)


@each("prepare")
def test_files_are_copies_that_keep_their_time(place):
    out, _ = place.call()
    before = {path.name: path.stat() for path in (out / "images").iterdir()}
    backup = place.folder / "backup"
    backup.mkdir()
    for path in (out / "images").iterdir():
        os.link(path, backup / path.name)
    shutil.copy(place.folder / "new.png", place.raw / "new.png")
    write_table_of(place.raw, [*place.names, "new.png"])
    out, _ = place.call()
    for name, status in before.items():
        now = (out / "images" / name).stat()
        assert now.st_mtime_ns == status.st_mtime_ns
        assert (now.st_ino, now.st_nlink) != (status.st_ino, 2)


@each("prepare", "segment", "enhance", "enhance fold by fold", "transform", "predict")
def test_a_run_that_is_stopped_while_it_grows_goes_on(place, monkeypatch):
    from cxrtool.errors import StoppedError
    from cxrtool.flow.journal import Journal

    place.call()
    shutil.copy(place.folder / "new.png", place.raw / "new.png")
    shutil.copy(place.folder / "other.png", place.raw / "other.png")
    write_table_of(place.raw, ["other.png", *place.names, "new.png"])
    place.prepare()
    add = Journal.add
    count = 0

    def stop(self, key, record, mark=""):
        nonlocal count
        count += 1
        if count == 4:
            raise StoppedError("stopped", 143)
        add(self, key, record, mark)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "add", stop)
        with pytest.raises(AssertionError, match="stopped"):
            place.call()
    out, _ = place.call()
    same_as_from_nothing(place, out)
    left = [path.name for path in Path(out.parent).iterdir() if path.name.startswith(".")]
    assert left == []
