import json
from dataclasses import replace
from importlib.metadata import version

import pytest

from cxrtool.commands.train import TrainOptions, resolve
from cxrtool.errors import UsageError
from cxrtool.training.presets import DEFAULTS, PRESETS


def options(**changes):
    return TrainOptions(**{"manifest": "m", "splits": "s", "model": "covid-xnet", **changes})


def test_a_flag_goes_before_a_preset_and_a_preset_before_the_default(settings):
    given = replace(settings, origins={"lr": "flag", "opt": "default", "batch_size": "config"})
    values, told = resolve(options(model=None, preset="covid-xnet", lr=0.5, batch_size=7), given)
    assert set(values) == set(DEFAULTS)
    assert (values["lr"], values["batch_size"]) == (0.5, 7)
    assert (values["opt"], values["opt_eps"]) == ("adadelta", 1e-7)
    assert values["patience"] == DEFAULTS["patience"]
    names = ("lr", "batch_size", "opt", "model", "patience")
    assert [told.origins[name] for name in names] == ["flag", "config", "preset", "preset", "default"]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_resolve(settings, name):
    values, _ = resolve(options(model=PRESETS[name].get("model", "resnet18"), preset=name), settings)
    assert {key: values[key] for key in PRESETS[name]} == PRESETS[name]


def test_weights_and_size_follow_the_network(settings):
    assert [resolve(options(), settings)[0][name] for name in ("weights", "size")] == ["none", 128]
    values, _ = resolve(options(model="inception_v3"), settings)
    assert [values[name] for name in ("weights", "size")] == ["imagenet", 299]


def test_random_bodies_are_not_frozen(settings, listener):
    values, _ = resolve(options(model="resnet18", preset="makris", weights="none"), settings)
    assert values["freeze"] is False
    assert listener.warned == [
        "--weights none: the whole network is trained, since a random body must not be frozen"
    ]  # fmt: skip
    with pytest.raises(UsageError, match="--freeze with --weights none"):
        resolve(options(freeze=True), settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"preset": "covidnet"}, "--preset: expected one of .*covid-xnet, makris"),
        ({"model": None}, "train needs --model NAME"),
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
    assert resolve(options(model="resnet18"), here)[0]["size"] == 77
    assert resolve(options(model="resnet18", size=33), here)[0]["size"] == 33
    assert resolve(options(model="resnet34"), here)[0]["size"] == 224
    write(versions={"timm": "0.1"})
    assert resolve(options(model="resnet18"), here)[0]["size"] == 224
    write(native_sizes={})
    assert resolve(options(model="resnet18"), here)[0]["size"] == 224
