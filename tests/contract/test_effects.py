"""What bears on a result is part of its identity: another value, another digest; or the option is declared without."""

import importlib
import json
import shutil
from functools import cache
from typing import get_args, get_origin, get_type_hints

import pytest

from cxrtool.cli.main import NAMES, members_of, module_of, run
from cxrtool.data.tables.manifest import read_manifest, read_table, write_manifest, write_table
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.flow.folder import StepFolder
from cxrtool.flow.settings import Settings
from cxrtool.options import declared, flag_of

CALLS = {
    "prepare": {"sources": ["manifest.csv"]},
    "select": {"manifests": ["manifest.csv"]},
    "audit": {"manifest": "manifest.csv"},
    "segment": {"sources": ["manifest.csv"], "lungs": "lungs"},
    "grade": {"manifest": "shares.csv", "fit": "extent"},
    "enhance": {"sources": ["manifest.csv"], "steps": "match-histogram,suppress-ribs,clahe", "ribs": "ribs"},
    "transform": {"sources": ["manifest.csv"], "generators": "generators"},
    "fit lungs": {"manifest": "manifest.csv"},
    "fit opacities": {"manifest": "shares.csv"},
    "fit ribs": {"manifest": "manifest.csv"},
    "fit generators": {"manifest": "manifest.csv", "splits": "splits.csv", "perceptual": "none", "weights": "none"},
    "train": {"manifest": "manifest.csv", "splits": "splits.csv", "model": "covid-xnet", "size": 32},
    "evaluate": {"inputs": ["predictions.csv"]},
    "compare": {"inputs": ["a=predictions.csv", "b=other-predictions.csv"]},
    "explain": {"model": "model", "sources": ["manifest.csv"]},
    "phantom": {},
    "weights import": {"file": "network.pth", "model": "covid-xnet", "classes": "a,b"},
}
"""Every command that writes a step's folder, and what it needs."""

OTHER = {
    "also": "further-manifest.csv",
    "augment": "none",
    "balance": "sex",
    "baseline": "b",
    "beside": "heatmaps",
    "budget": 1,
    "by": "severity",
    "cache": "cache",
    "class_loss_weight": "0.1",
    "classes": "normal,covid",
    "cluster": "local",
    "config": "empty.toml",
    "confusion_matrix": "other-counts.csv",
    "device": "cpu",
    "exclude": ["severity=mild"],
    "external": "other-manifest.csv",
    "file": "other-network.pth",
    "fitted_on": "manifest.csv",
    "generators": "other-generators",
    "grid": ["lr=0.1,0.2"],
    "kernels": "3,3,3,3,3",
    "layer": "features",
    "like": "prepared-model",
    "lungs": "other-lungs",
    "manifest": "other-manifest.csv",
    "manifests": ["other-manifest.csv"],
    "mean": "0.3",
    "one_per": "patient_id",
    "one_per_except": ["covid"],
    "only": "r0f0",
    "opacity_network": "other-opacities",
    "out": "elsewhere",
    "part": "1/2",
    "per_class": 2,
    "perceptual": "network.pth",
    "plant": "marker",
    "positive": "normal",
    "precision": "bf16",
    "prevalence": "0.1",
    "reference": "picture.png",
    "relabel": ["covid=normal"],
    "ribs": "other-ribs",
    "root": "/",
    "run": "predictions.csv",
    "salt": "pepper",
    "severity_from": "age",
    "source_name": "here",
    "splits": "other-splits.csv",
    "stages": ["enhanced=other-manifest.csv"],
    "std": "0.3",
    "steps": "clahe",
    "subset": "validation",
    "target": "opposite",
    "target_column": "path",
    "threads": 97,
    "track": "tensorboard",
    "track_to": "boards",
    "transform": "generators",
    "view": "PA",
    "warmup_epochs": 7,
    "weights": "network.pth",
    "where": "age > 3",
    "within": "other-manifest.csv",
}
"""Another value of an option whose type or choices do not tell one."""

OWN = {
    ("compare", "inputs"): ["a=predictions.csv", "b=predictions.csv"],
    ("evaluate", "inputs"): ["other-predictions.csv"],
    ("evaluate", "relabel"): ["covid=b,normal=a"],
    ("audit", "reference"): "other-manifest.csv",
    ("audit", "structure"): "ribless",
    ("fit opacities", "manifest"): "other-shares.csv",
    ("fit opacities", "also"): "further-shares.csv",
    ("fit opacities", "checkpoint"): "best-loss",
    ("fit opacities", "clear"): "normal",
    ("fit opacities", "loss"): "bce+dice",
    ("fit opacities", "extent"): "extent",
    ("fit opacities", "weights"): "imagenet.pth",
    ("fit opacities", "target_column"): "mask",
    ("grade", "manifest"): "other-shares.csv",
    ("grade", "fit"): "other",
    ("grade", "rated"): "other",
    ("grade", "grader"): "other-grader",
    ("grade", "classes"): "covid",
    ("explain", "method"): "grad-cam,cam",
    ("explain", "model"): "other-model",
    ("explain", "reference"): "other-manifest.csv",
    ("explain", "structure"): "ribless",
    ("explain", "sources"): ["other-manifest.csv"],
    ("segment", "sources"): ["other-manifest.csv"],
    ("enhance", "sources"): ["other-manifest.csv"],
    ("transform", "sources"): ["other-manifest.csv"],
    ("fit lungs", "exposure"): "none",
    ("fit lungs", "loss"): "dice",
    ("fit lungs", "weights"): "default",
    ("phantom", "sources"): "county",
    ("prepare", "columns"): "label=sex",
    ("evaluate", "id_column"): "path",
    ("evaluate", "label_column"): "severity",
    ("evaluate", "score_column"): "prob_covid",
    ("evaluate", "predicted_column"): "label",
    ("prepare", "images"): "heatmaps",
    ("prepare", "size"): "64",
    ("prepare", "sources"): ["other-manifest.csv"],
    ("train", "holdout"): "80/20",
    ("train", "model"): "covid-caps",
    ("train", "target"): "severity",
    ("weights import", "model"): "covid-caps",
    ("weights import", "size"): 64,
}
"""The same where an option means something of its own to a command."""

BESIDE = {
    ("enhance", "steps"): {"steps": "match-histogram", "ribs": None},
    ("evaluate", "confusion_matrix"): {"inputs": [], "confusion_matrix": "counts.csv"},
    ("evaluate", "precision"): {"inputs": ["model", "manifest.csv"], "relabel": ["covid=a,normal=b"]},
    ("evaluate", "relabel"): {"inputs": ["model", "manifest.csv"], "relabel": ["covid=a,normal=b"]},
    ("evaluate", "together"): {"inputs": ["predictions.csv", "other-predictions.csv"]},
    ("evaluate", "threads"): {"inputs": ["model", "manifest.csv"], "relabel": ["covid=a,normal=b"]},
    ("evaluate", "prevalence"): {"positive": "covid"},
    ("evaluate", "sensitivity"): {"positive": "covid"},
    ("audit", "reference"): {"run": "run", "reference": "manifest.csv", "structure": "mask"},
    ("audit", "structure"): {"run": "run", "reference": "manifest.csv", "structure": "mask"},
    ("grade", "grader"): {"fit": None, "grader": "grader"},
    ("grade", "scale"): {"fit": "zones"},
    ("segment", "opacity_network"): {"opacities": True},
    ("explain", "reference"): {"reference": "manifest.csv", "structure": "mask"},
    ("explain", "structure"): {"reference": "manifest.csv", "structure": "mask"},
    ("explain", "subset"): {"model": "run"},
    **{
        (f"fit {kind}", option): {"splits": "splits.csv"}
        for kind in ("lungs", "opacities", "ribs")
        for option in ("cluster", "jobs", "only")
    },
    ("segment", "margin"): {"crop": True},
    ("select", "one_per_except"): {"one_per": "patient_id"},
    ("segment", "margin_of"): {"crop": True},
    ("train", "budget"): {"grid": ["lr=0.1,0.2"]},
    ("train", "folds"): {"splits": None, "folds": 2},
    ("train", "freeze"): {"weights": "network.pth"},
    ("train", "holdout"): {"splits": None, "holdout": "60/20/20"},
    ("train", "track_to"): {"track": "tensorboard"},
}
"""What is given beside an option where it cannot stand alone, or bears on nothing alone."""

NAMING = {
    "also",
    "budget",
    "grid",
    "images",
    "like",
    "manifest",
    "manifests",
    "preset",
    "salt",
    "sources",
    "splits",
    "transform",
    "verify",
}
"""Options that may be declared without effect, since not they but what they name or stand for is part of the identity;
and `--verify`, which knows the same inputs by another mark."""

ALONE = {("weights import", "kind")}
"""Options that no two sound command lines differ in alone."""

FILES = {"fuse joint", "fuse mean", "fuse twins", "predict", "report", "split", "weights export", "weights fetch"}
"""Commands that write a file instead of a step's folder."""


class Asked(BaseException):
    """The question whether there is work, with the digest; no error, so that no command answers it."""


def names_in(group):
    """The commands of a group, or the one command."""
    return [f"{group} {member}" for member in members_of(importlib.import_module(module_of(group)))] or [group]


def kind_of(name):
    """The options of a command."""
    return get_type_hints(importlib.import_module(module_of(name)).run)["options"]


@cache
def options_of(name):
    """All that a command takes: field, declaration and type by name."""
    kind = kind_of(name)
    types = {**get_type_hints(Settings), **get_type_hints(kind)}
    found = {**{option: declared(Settings)[option] for option in kind.SHARED}, **declared(kind)}
    return {option: (*entry, types[option]) for option, entry in found.items()}


EVERY = [(name, option) for name in CALLS for option in options_of(name) if (name, option) not in ALONE]


def line_of(name, values):
    """The command line that gives options these values."""
    arguments, flags = [], []
    for option, value in values.items():
        entry, declaration, _ = options_of(name)[option]
        given = value if isinstance(value, list) else [value]
        if declaration.argument:
            arguments += given
        elif isinstance(value, bool):
            pair = [flag for text in declaration.flags for flag in text.split("/")] or [flag_of(option)]
            flags += [pair[0 if value else 1]] if value != entry.default else []
        else:
            flags += [part for each in given for part in (flag_of(option, declaration), each)]
    return [*name.split(), *map(str, arguments), *map(str, flags)]


def another(name, option, value):
    """Another valid value of an option; `value` is the one that it has."""
    entry, declaration, kind = options_of(name)[option]
    told = OWN.get((name, option), OTHER.get(option))
    if told is not None:
        return told
    base = next(part for part in (get_args(kind) or (kind,)) if part not in (type(None), ...))
    if base is bool:
        return not entry.default
    if known := [choice for choice in declaration.known() if choice != value]:
        return [known[0]] if get_origin(kind) is tuple else known[0]
    assert base in (int, float), f"name another value of `{name} {flag_of(option)}` in OTHER or OWN"
    number = value if value is not None else declaration.minimum or 0
    after = number + 1 if base is int else number / 2 or 0.5
    return after if declaration.maximum is None or after <= declaration.maximum else number - 1


@pytest.fixture(scope="module")
def world(tmp_path_factory, make_masked_study, make_predictions, model, write_generators):
    """A folder with a file for everything that an option may name, and another one beside it."""
    import torch

    from cxrtool.imaging.fits import Form
    from cxrtool.models.opacity_unet import OpacityUNet
    from cxrtool.models.parts import save_part
    from cxrtool.models.rib_autoencoder import RibAutoencoder
    from cxrtool.models.unet import UNet

    place = tmp_path_factory.mktemp("world")
    study = make_masked_study(place / "first")
    manifest = read_manifest(study.folder)
    rows = [{**row, "ribless": row["path"]} for row in manifest.rows]
    write_manifest(place / "manifest.csv", [*manifest.columns, "ribless"], rows)
    write_manifest(place / "other-manifest.csv", [*manifest.columns, "ribless"], [{**rows[0], "age": "7"}, *rows[1:]])
    _write_shares(place, manifest.columns, rows)
    further = [{**row, "image_id": f"x{row['image_id']}", "patient_id": f"x{row['patient_id']}"} for row in rows]
    write_manifest(place / "further-manifest.csv", [*manifest.columns, "ribless"], further)
    splits = read_table(study.splits).rows
    write_table(place / "splits.csv", list(splits[0]), splits)
    write_table(place / "other-splits.csv", list(splits[0]), splits[::-1])
    write_predictions(place / "predictions.csv", make_predictions())
    write_predictions(place / "other-predictions.csv", make_predictions(seed=1))
    for number, name in enumerate(("", "other-")):
        with torch.random.fork_rng([]):
            torch.manual_seed(number)
            save_part(place / f"{name}lungs", "lungs", "unet", UNet().eval(), Form(64), {})
            save_part(place / f"{name}opacities", "opacities", "opacity-unet", OpacityUNet(), Form(64), {})
            save_part(place / f"{name}ribs", "ribs", "autoencoder", RibAutoencoder(), Form(64), {})
        write_generators(
            place / f"{name}generators", place / "splits.csv", rows, size=16 + number, folds=["r0f0", "r0f1"]
        )
        shutil.copytree(model, place / f"{name}model")
        (place / f"{name}network.pth").write_bytes(b"network" * (number + 1))
        (place / f"{name}heatmaps").mkdir()
        write_manifest(place / f"{name}heatmaps" / "manifest.csv", list(rows[0]), rows)
        (place / f"{name}heatmaps" / "run.json").write_text(json.dumps({"command": "explain"}))
        shutil.copyfile(rows[number]["path"], place / f"{name}picture.png")
        (place / f"{name}counts.csv").write_text(f"true,a,b\na,{number + 5},1\nb,2,7\n")
    shutil.copytree(model.parent, place / "run")
    shutil.copytree(model, place / "prepared-model")
    told = json.loads((model / "model.json").read_text())
    told["chain"] = [{"step": "prepare", "version": 1, "size": 64, "fit": "pad"}]
    (place / "prepared-model" / "model.json").write_text(json.dumps(told))
    (place / "empty.toml").write_text("")
    return place


def _write_shares(place, columns, rows):
    """Manifests with opaque shares, extents and masks of opacities, and graders that were fitted to them."""
    import numpy as np

    from cxrtool.evaluation.grading import fit_grader
    from cxrtool.flow.graders import write_grader
    from cxrtool.imaging.regions import PREFIX, REGIONS, ZONES

    more = {PREFIX + region: "0.25" for region in REGIONS} | {
        "extent": "2",
        "other": "3",
        "opacities": "",
        "opacities_reference": "",
    }
    more |= {"zones": "2", **{f"zones_{zone}": "1" for zone in ZONES}}
    shares = [{**row, **more, "mask": row["mask"] or row["path"], "opacities": row["path"]} for row in rows]
    shares = [{**row, "opacities_reference": row["opacities"]} for row in shares]
    names = [*columns, *(name for name in more if name not in columns)]
    write_manifest(place / "shares.csv", names, shares)
    write_manifest(place / "other-shares.csv", names, [{**shares[0], "age": "7"}, *shares[1:]])
    further = [{**row, "image_id": f"x{row['image_id']}", "patient_id": f"x{row['patient_id']}"} for row in shares]
    write_manifest(place / "further-shares.csv", names, further)
    values = np.random.default_rng(0).random((20, 2))
    seen = [{"image_id": f"i{k}", "patient_id": f"p{k}", "sha256": ""} for k in range(20)]
    for number, name in enumerate(("", "other-")):
        grader = fit_grader("extent", values, (3 + number) * values.sum(1), np.arange(20), 0)
        write_grader(place / f"{name}grader", grader, seen, {})


@pytest.fixture(scope="module")
def digests():
    """What command lines have answered already."""
    return {}


@pytest.fixture
def digest_of(world, digests, monkeypatch, capsys):
    """The identity of the result that a command with these options would have."""

    def ask(self, folds=()):
        raise Asked(self.plan.digest(self.settings))

    monkeypatch.setattr(StepFolder, "needs_work", ask)
    monkeypatch.delenv("CXRTOOL_CACHE", raising=False)
    monkeypatch.chdir(world)

    def call(name, values):
        line = tuple(line_of(name, {"out": "out", **values}))
        if line not in digests:
            try:
                run(line)
            except Asked as asked:
                digests[line] = asked.args[0]
            assert line in digests, f"cxrtool {' '.join(line)}: {capsys.readouterr().err}"
        return digests[line]

    return call


def test_every_command_that_writes_a_folder_is_asked():
    every = [name for group in NAMES for name in names_in(group)]
    assert {name for name in every if {"out", "force"} <= set(options_of(name))} == set(CALLS) | FILES
    assert {name for name in every if kind_of(name).WRITES_FILE} == FILES


@pytest.mark.parametrize(("name", "option"), EVERY, ids=lambda text: text.replace("_", "-"))
def test_another_value_is_another_result_or_declared_to_be_none(digest_of, name, option):
    entry, declaration, _ = options_of(name)[option]
    given = {
        key: value for key, value in {**CALLS[name], **BESIDE.get((name, option), {})}.items() if value is not None
    }
    before = digest_of(name, given)
    after = digest_of(name, {**given, option: another(name, option, given.get(option, entry.default))})
    assert (before != after) == (declaration.effect or option in NAMING)
