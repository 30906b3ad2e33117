"""Lungs, zones and opaque shares, on masks drawn by hand."""

import numpy as np
import pytest

from cxrtool.imaging.regions import REGIONS
from cxrtool.imaging.zones import lungs_of, opaque_shares, zones_of


def drawn(*boxes, shape=(90, 120)):
    mask = np.zeros(shape, np.uint8)
    for top, left, bottom, right in boxes:
        mask[top:bottom, left:right] = 255
    return mask


RIGHT, LEFT = (10, 10, 70, 45), (13, 70, 73, 110)


def test_the_right_lung_is_on_the_left_of_the_image():
    right, left = lungs_of(drawn(RIGHT, LEFT))
    assert np.array_equal(right, drawn(RIGHT))
    assert np.array_equal(left, drawn(LEFT))


def test_lungs_that_touch_are_divided_where_they_are_lowest():
    joined = drawn(RIGHT, LEFT, (30, 45, 36, 70))
    right, left = lungs_of(joined)
    assert np.array_equal(right | left, joined)
    assert not (right & left).any()
    assert right[:, :45].any()
    assert not right[:, 70:].any()
    assert left[:, 70:].any()
    assert not left[:, :45].any()


@pytest.mark.parametrize(("box", "side"), [((10, 10, 80, 40), 0), ((10, 80, 80, 110), 1)])
def test_a_narrow_component_is_one_lung(box, side):
    found = lungs_of(drawn(box))
    assert np.array_equal(found[side], drawn(box))
    assert not found[1 - side].any()


def test_zones_are_thirds_of_the_height_and_together_the_lung():
    lung = drawn(RIGHT)
    upper, middle, lower = zones_of(lung)
    assert [np.flatnonzero(zone.any(1)).tolist() for zone in (upper, middle, lower)] == [
        list(range(10, 30)),
        list(range(30, 50)),
        list(range(50, 70)),
    ]
    assert np.array_equal(upper + middle + lower, lung)


def test_shares_are_of_each_region():
    # The upper third of the right lung, and half of the width of the lower third of the left one.
    found = drawn((10, 10, 30, 45), (53, 70, 73, 90))
    shares = opaque_shares(found.astype(np.float32) / 255, drawn(RIGHT, LEFT))
    assert list(shares) == list(REGIONS)
    wanted = {"right_upper": 1, "right_middle": 0, "right_lower": 0, "left_upper": 0, "left_lower": 0.5}
    assert {name: shares[name] for name in wanted} == pytest.approx(wanted)
    assert shares["right"] == pytest.approx(1 / 3)
    assert shares["left"] == pytest.approx(1 / 6)
    assert shares["lungs"] == pytest.approx((20 * 35 + 20 * 20) / (60 * 35 + 60 * 40))


def test_a_lung_that_was_not_found_has_no_share():
    shares = opaque_shares(drawn(RIGHT).astype(np.float32) / 255, drawn(RIGHT))
    assert shares["right"] == 1.0
    assert shares["left"] is None
    assert shares["left_upper"] is None
    assert set(opaque_shares(drawn().astype(np.float32), drawn()).values()) == {None}
