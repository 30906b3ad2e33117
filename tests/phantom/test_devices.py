"""What lies on a patient tells the day and the view, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from cxrtool.phantom.body import Pose, draw_body
from cxrtool.phantom.devices import draw_devices
from cxrtool.phantom.subject import LABELS


def devices_of(subject, shape=(96, 96)):
    return draw_devices(subject, Pose(subject, shape, draw_body(subject)))


@pytest.fixture(scope="module")
def worn(make):
    """Devices of many patients, by view; None for those who wear none."""
    return {view: [devices_of(make(seed, view=view, age=60)) for seed in range(150)] for view in ("PA", "AP")}


def test_devices_are_an_attenuation(worn):
    for devices in [found for each in worn.values() for found in each if found is not None]:
        assert devices.shape == (96, 96)
        assert devices.dtype == np.float32
        assert devices.min() >= 0
        assert devices.max() <= 1
        assert 0 < (devices > 0.05).mean() < 0.3


def test_the_lying_wear_more(worn):
    shares = {view: np.mean([found is not None for found in each]) for view, each in worn.items()}
    assert 0.02 < shares["PA"] < 0.2
    assert 0.35 < shares["AP"] < 0.65


def test_devices_do_not_tell_the_class(make):
    for seed in range(25):
        subject = make(seed, view="AP")
        first = devices_of(subject)
        for label in LABELS:
            found = devices_of(replace(subject, label=label, extent=(4, 2) if label != "normal" else (0, 0)))
            assert (found is None) == (first is None)
            if first is not None:
                np.testing.assert_array_equal(found, first)


def test_another_shot_of_the_day_shows_the_same_devices(make):
    for seed in range(25):
        subject = make(seed, view="AP", age=60)
        one, other = devices_of(subject), devices_of(replace(subject, exposure=(5, 5)))
        assert (one is None) == (other is None)
        if one is not None:
            assert 0.8 < one.sum() / other.sum() < 1.25


def test_another_day_brings_others(make):
    found = [devices_of(make(1, view="AP", age=60, visit=(1, day))) for day in range(30)]
    assert 5 < sum(each is None for each in found) < 25


def test_devices_come_in_any_shape(make):
    shapes = ((65, 83), (33, 27), (200, 168))
    assert all(
        found is None or found.shape == shape
        for shape in shapes
        for found in (devices_of(make(seed, view="AP"), shape) for seed in range(6))
    )
