from types import SimpleNamespace

import numpy as np
import pytest

from cxrtool.commands.fit.generators.effects import HEADER, effect_rows, summarise
from cxrtool.data.tables.manifest import Manifest
from cxrtool.flow.assignment import Assignment


def test_a_row_for_each_image_and_generator():
    manifest = Manifest(
        ["image_id", "label", "patient_id"],
        [
            {"image_id": "a", "label": "covid", "patient_id": "p"},
            {"image_id": "b", "label": "normal", "patient_id": ""},
        ],
    )
    predictions = SimpleNamespace(
        before=np.array([[0.6, 0.4], [0.3, 0.7]]),
        after=np.array([[[0.9, 0.1], [0.5, 0.5]], [[0.2, 0.8], [0.25, 0.75]]]),
        psnr=np.array([[30.0, 31.0], [32.0, 33.0]]),
    )
    rows = effect_rows(
        manifest, Assignment("1", "2", {}), [(0, "validation"), (1, "test")], predictions, ["covid", "normal"]
    )
    names = ("image_id", "generator", "p_label", "p_label_after", "p_before", "p_after", "psnr")
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("a", "covid", "0.600000", "0.900000", "0.600000", "0.900000", "30.000"),
        ("a", "normal", "0.600000", "0.200000", "0.400000", "0.800000", "32.000"),
        ("b", "covid", "0.700000", "0.500000", "0.300000", "0.500000", "31.000"),
        ("b", "normal", "0.700000", "0.750000", "0.700000", "0.750000", "33.000"),
    ]
    assert {(row["repeat"], row["fold"]) for row in rows} == {("1", "2")}


def make(gains, label="covid", subset="test", per_patient=1):
    own = [
        {
            "image_id": f"{label}{k}",
            "patient_id": f"{label}{k // per_patient}",
            "subset": subset,
            "label": label,
            "generator": label,
            "p_label_after": f"{0.5 + gain}",
            "p_before": "0.5",
            "p_after": f"{0.5 + gain}",
            "psnr": "30",
        }
        for k, gain in enumerate(gains)
    ]
    # What another generator makes of the same images gives their class 0.2 more than nothing did, each time.
    other = {"normal": "covid"}.get(label, "normal")
    return own + [{**row, "generator": other, "p_label_after": "0.7", "p_after": "0.3"} for row in own]


def cells(rows, name="covid", subset="test"):
    header, table = summarise(rows, ["covid", "normal"], subset, 0)
    return dict(zip(header, next(line for line in table if line[0] == name), strict=True))


def test_the_gain_of_each_class_under_its_own_generator():
    gains = np.random.default_rng(0).normal(0.1, 0.05, 80)
    rows = [*make(gains), *make([0.4] * 9, subset="validation")]
    found = cells(rows)
    assert float(found["P by others"]) == pytest.approx(0.7)
    assert float(found["own - others"]) == pytest.approx(gains.mean() - 0.2, abs=6e-4)
    assert float(found["difference"]) == pytest.approx(gains.mean(), abs=6e-4)
    low, high = map(float, found["95 % interval"].split(" to "))
    # The bootstrap's interval of a mean is that of the normal distribution, nearly.
    reach = 1.96 * gains.std() / np.sqrt(80)
    assert (low, high) == (
        pytest.approx(gains.mean() - reach, abs=0.003),
        pytest.approx(gains.mean() + reach, abs=0.003),
    )
    assert float(found["share rising"]) == pytest.approx((gains > 0).mean(), abs=6e-4)
    low, high = map(float, found["95 % of share"].split(" to "))
    assert low < (gains > 0).mean() <= high
    odds = np.log((0.5 + gains) / (0.5 - gains)).mean()
    assert float(found["log odds"]) == pytest.approx(odds, abs=6e-4)
    low, high = map(float, found["95 % of odds"].split(" to "))
    assert low < odds < high
    assert (found["images"], found["patients"], found["PSNR dB"]) == ("80", "80", "30.00")


def test_images_of_one_patient_are_drawn_together():
    gains = np.repeat(np.random.default_rng(1).normal(0.1, 0.05, 20), 4)

    def width(per_patient):
        low, high = map(float, cells(make(gains, per_patient=per_patient))["95 % interval"].split(" to "))
        return high - low

    assert width(4) > 1.6 * width(1)


def test_a_class_without_images_is_told_as_such():
    found = cells(make([0.1]), "normal")
    assert (found["images"], found["difference"], len(found)) == ("0", "-", len(HEADER))
