import json
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest

from cxrtool.commands.train.options import TrainOptions
from cxrtool.commands.train.resolving import resolve
from cxrtool.errors import UsageError
from cxrtool.training.presets import PRESETS


def options(**changes):
    return TrainOptions.of(**{"manifest": Path("m"), "splits": Path("s"), "model": "covid-xnet", **changes})


def test_a_flag_goes_before_a_preset_and_a_preset_before_the_default():
    given = {"manifest": Path("m"), "splits": Path("s"), "preset": "covid-xnet", "lr": 0.5, "batch_size": 7}
    told, origins = TrainOptions.build(given)
    assert (told.lr, told.batch_size) == (0.5, 7)
    assert (told.opt, told.opt_eps) == ("adadelta", 1e-7)
    assert told.patience == TrainOptions.patience
    assert [origins.get(name) for name in ("lr", "batch_size", "opt", "model", "patience")] == [
        None,
        None,
        "preset",
        "preset",
        None,
    ]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve(settings, name):
    given = {"model": PRESETS[name].get("model", "resnet18"), "preset": name}
    told = resolve(options(**given), replace(settings, origins={"freeze": "preset"}))
    assert {key: getattr(told, key) for key in PRESETS[name]} == PRESETS[name]


def test_weights_and_size_follow_the_network(settings):
    found = resolve(options(), settings)
    assert (found.weights, found.size) == ("none", 128)
    found = resolve(options(model="inception_v3"), settings)
    assert (found.weights, found.size) == ("imagenet", 299)


def test_random_bodies_are_not_frozen(settings, listener):
    by_preset = replace(settings, origins={"freeze": "preset"})
    assert resolve(options(model="resnet18", preset="makris", weights="none"), by_preset).freeze is False
    assert listener.warned == [
        "--weights none: the whole network is trained, since a backbone with random weights must not be frozen"
    ]
    with pytest.raises(UsageError, match="--freeze with --weights none"):
        resolve(options(freeze=True), replace(settings, origins={"freeze": "flag"}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "covidnet"}, "--preset: expected one of .*covid-xnet, makris"),
        ({"model": ""}, "train needs --model NAME"),
        ({"model": "resnet17"}, "nearest: resnet18"),
        ({"model": "resnet18.nonsense"}, "--model"),
        ({"fit": "stretch"}, "--fit: expected one of squash, pad, crop"),
        ({"normalize": "z"}, "--normalize: expected one of native, div255"),
        ({"frozen_bn": "off"}, "--frozen-bn: expected one of eval, batch"),
    ],
)
def test_wrong_values_are_refused_by_their_flag(settings, changes, message):
    with pytest.raises(UsageError, match=message):
        resolve(options(**changes), settings)


def test_the_network_s_own_size_is_read_from_the_run_that_is_there(settings, tmp_path, monkeypatch):
    def write(**changes):
        told = {"command": "train", "versions": {"timm": version("timm")}, "native_sizes": {"resnet18": 77}}
        (tmp_path / "run.json").write_text(json.dumps({**told, **changes}))

    here = replace(settings, out=tmp_path)
    write()
    assert resolve(options(model="resnet18"), here).size == 77
    assert resolve(options(model="resnet18", size=33), here).size == 33
    assert resolve(options(model="resnet34"), here).size == 224
    write(versions={"timm": "0.1"})
    assert resolve(options(model="resnet18"), here).size == 224
    write(native_sizes={})
    assert resolve(options(model="resnet18"), here).size == 224
