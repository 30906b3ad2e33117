from dataclasses import replace

import pytest

from cxrtool.flow.fold_training import make_design
from cxrtool.models.registry import check
from cxrtool.options import declared
from cxrtool.training.augment import parse
from cxrtool.training.options import TrainingOptions
from cxrtool.training.presets import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_sets_known_options_to_what_train_takes(name, settings):
    preset = PRESETS[name]
    assert set(preset) <= declared(TrainingOptions).keys()
    options = TrainingOptions.of(**{"model": "vgg16", "size": 224, "weights": "none", **preset})
    assert TrainingOptions.of(preset=name, model=options.model, size=options.size, weights=options.weights) == replace(
        options, preset=name
    )
    design = make_design(options, 3, settings, 0)
    check(design.architecture, design.weights)
    assert design.augmentation.active == (preset["augment"] != "none")


def test_covid_xnet_is_what_the_paper_states():
    preset = PRESETS["covid-xnet"]
    assert (preset["model"], preset["size"], preset["batch_size"], preset["opt"]) == ("covid-xnet", 128, 32, "adadelta")
    assert preset["class_weights"] == "balanced"
    assert preset["augment"] == "rotate=15,shift=0.2,shear=0.2,zoom=0.2,flip=0.5,keras=1"
    assert (preset["lr"], preset["opt_rho"], preset["opt_eps"], preset["epochs"]) == (1.0, 0.95, 1e-7, 100)
    # On an inner tenth for validation, which is the split's to hold back.
    assert preset["checkpoint"].startswith("best-")


def test_vgg16_portable_is_what_the_paper_states(settings):
    preset = PRESETS["vgg16-portable"]
    assert (preset["model"], preset["size"], preset["opt"], preset["lr"]) == ("vgg16.tv_in1k", 224, "adam", 1e-3)
    assert (preset["batch_size"], preset["epochs"], preset["dropout"], preset["augment"]) == (32, 50, 0.5, "none")
    assert (preset["weights"], preset["freeze"], preset["checkpoint"]) == ("imagenet", True, "last")
    assert preset["watch"] == "test"


def test_its_dense_layers_are_trained_and_its_convolutions_frozen():
    import torch
    from torch import nn

    from cxrtool.models.architecture import Architecture
    from cxrtool.models.network import count_parameters
    from cxrtool.models.registry import build

    preset = PRESETS["vgg16-portable"]
    with torch.device("meta"):
        network, _ = build(Architecture(preset["model"], 4, dropout=preset["dropout"], size=preset["size"]))
    network.freeze_backbone()
    dense = [(25088, 4096), (4096, 4096), (4096, 4)]
    expected = sum((before + 1) * after for before, after in dense)
    assert count_parameters(network)["trained_parameters"] == expected
    # One before each of the two layers that follow a dense one.
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5]


def test_makris_is_what_the_paper_states():
    preset = PRESETS["makris"]
    assert (preset["weights"], preset["freeze"], preset["dropout"]) == ("imagenet", True, 0.5)
    assert (preset["opt"], preset["lr"], preset["batch_size"], preset["epochs"]) == ("adam", 1e-3, 8, 35)
    assert preset["augment"].startswith("rotate=30,")
    assert parse(preset["augment"]).keras == 1
    assert preset["watch"] == "test"


def test_presets_cannot_be_changed_by_accident():
    with pytest.raises(TypeError):
        PRESETS["covid-xnet"]["lr"] = 2.0


def test_portable_densenet161_is_what_the_paper_states():
    preset = PRESETS["portable-densenet161"]
    assert (preset["model"], preset["weights"], preset["size"]) == ("densenet161.tv_in1k", "imagenet", 224)
    assert (preset["opt"], preset["lr"], preset["momentum"], preset["sched"]) == ("sgd", 0.01, 0.9, "constant")
    assert (preset["batch_size"], preset["epochs"]) == (4, 200)
    assert not preset.get("freeze")
    augmentation = parse(preset["augment"])
    assert (augmentation.zoom, augmentation.p, augmentation.flip) == (0.1, 0.5, 0.5)


def test_covid_sdnet_and_its_baselines_are_what_the_papers_state():
    preset = PRESETS["covid-sdnet"]
    assert (preset["model"], preset["hidden"]) == ("resnet50.tv_in1k", 512)
    assert (preset["opt"], preset["batch_size"]) == ("sgd", 16)
    assert (preset["epochs"], preset["patience"], preset["size"], preset["lr"]) == (50, 10, 224, 1e-3)
    assert not preset.get("freeze")
    caps, pepx = PRESETS["covid-caps"], PRESETS["pepx"]
    assert (caps["model"], caps["opt"], caps["lr"], caps["batch_size"], caps["epochs"]) == (
        "covid-caps",
        "adam",
        1e-3,
        16,
        100,
    )
    assert (pepx["model"], pepx["opt"], pepx["lr"], pepx["batch_size"], pepx["epochs"]) == ("pepx", "adam", 2e-4, 8, 10)
    assert (caps["size"], pepx["size"]) == (224, 224)
