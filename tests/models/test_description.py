import json

import pytest

from cxrtool.errors import InputError
from cxrtool.models.description import ModelDescription

SOUND = {
    "schema": 1,
    "classes": ["covid", "normal"],
    "architecture": {"name": "covid-xnet", "classes": 2, "size": 32},
    "chain": [{"step": "prepare"}],
    "input": {"size": 32, "fit": "squash"},
    "normalization": {"mean": [0.5], "std": [0.5]},
    "calibration": {"temperature": 1.5, "images": 9, "reason": None, "nll_before": 1.0, "nll_after": 0.9},
    "thresholds": None,
    "trained": {"epoch": 3},
    "usual": None,
}


def read(folder, **changes):
    (folder / "model.json").write_text(json.dumps({**SOUND, **changes}))
    return ModelDescription.read(folder)


def test_a_description_is_read_and_written_alike(tmp_path):
    assert read(tmp_path).to_json() == SOUND


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"classes": ["covid"] * 3}, "expected in 'classes' every class once, found 'covid' 3 times"),
        ({"classes": []}, "expected in 'classes' a list of names"),
        ({"classes": ["covid", " "]}, "expected in 'classes' a list of names"),
        ({"classes": "covid"}, "expected in 'classes' a list of names"),
        ({"classes": ["covid", "normal", "viral"]}, "expected 2 classes as the network has, found 3"),
        ({"architecture": None}, "expected in 'architecture' a network"),
        ({"architecture": ["resnet18"]}, "expected in 'architecture' names and values"),
        ({"tempreature": 1.0}, "found 'tempreature'"),
        ({"calibration": {"temperature": float("nan")}}, "expected in 'calibration' a temperature above 0, found nan"),
        ({"calibration": {"temperature": -1}}, "expected in 'calibration' a temperature above 0, found -1"),
        ({"calibration": {}}, "expected in 'calibration' a temperature above 0, found None"),
        ({"normalization": {"mean": [0.5], "std": [0]}}, "expected in 'normalization' a mean and an std above 0"),
        ({"normalization": {"mean": [float("inf")], "std": [1]}}, "expected in 'normalization' a mean"),
        ({"normalization": {"mean": [0.5, 0.5], "std": [1]}}, "expected in 'normalization' a mean"),
        ({"input": {"size": 0, "fit": "squash"}}, "expected in 'input' a size in pixels and a fit"),
        ({"input": {"size": 32, "fit": "stretch"}}, "expected in 'input' a size in pixels and a fit"),
        ({"input": {"size": 32}}, "expected in 'input' a size in pixels and a fit"),
        ({"chain": [{}]}, "expected in 'chain' a list of steps"),
        ({"thresholds": [0.5]}, "expected in 'thresholds' names and values"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(tmp_path, changes, found):
    with pytest.raises(InputError) as caught:
        read(tmp_path, **changes)
    assert found in caught.value.message
    assert "\n" not in caught.value.message
