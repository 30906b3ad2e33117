"""Lesions: as much of a lung as was asked for, where and how the disease would have it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxrtool.phantom.lesions import DISEASES, draw_lesions, extent_of
from cxrtool.phantom.subject import KINDS, LABELS


@pytest.fixture(scope="module")
def ill(make, lay):
    """Draws lesions of a label and an extent: the scene and what lies in its lungs."""

    def drawn(seed, label, extent, **changes):
        scene = lay(make(seed, **changes))
        return scene, draw_lesions(replace(scene.subject, label=label, extent=extent), scene.pose, scene.thorax)

    return drawn


@pytest.fixture(scope="module")
def half_ill(ill):
    """Thirty patients of every disease, half of each lung ill."""
    return {label: [ill(seed, label, (2, 2)) for seed in range(30)] for label in DISEASES}


def nodular(lesions):
    return (lesions.kinds == KINDS["nodule"]).any()


@pytest.mark.parametrize("label", DISEASES)
def test_every_lung_is_as_ill_as_was_asked_for(ill, label):
    for extent in ((1, 4), (2, 3), (3, 1), (4, 2), (0, 2), (3, 0)):
        for seed in range(8):
            scene, lesions = ill(seed, label, extent)
            for lung, share in zip(scene.lungs, lesions.shares, strict=True):
                assert (lesions.kinds[lung] > 0).mean() == pytest.approx(share, abs=0.002)
            found = tuple(map(extent_of, lesions.shares))
            if nodular(lesions):
                # Nodules do not cover half a lung: they end where they would hide it.
                assert all(
                    got == 0 if wanted == 0 else 1 <= got <= 2 for got, wanted in zip(found, extent, strict=True)
                )
                assert all(got == 1 for got, wanted in zip(found, extent, strict=True) if wanted == 1)
                assert max(lesions.shares) < 0.33
            else:
                assert found == extent, seed


def test_an_extent_is_a_quarter_of_a_lung():
    assert [extent_of(share) for share in (0.0, 0.009, 0.01, 0.25, 0.251, 0.5, 0.51, 0.75, 0.76, 1.0)] == [
        0,
        0,
        1,
        1,
        2,
        2,
        3,
        3,
        4,
        4,
    ]


@pytest.mark.parametrize(
    ("label", "extent"), [("normal", (0, 0)), ("normal", (3, 3)), *((n, (0, 0)) for n in DISEASES)]
)
def test_the_healthy_have_no_lesions(ill, label, extent):
    for seed in range(5):
        _, lesions = ill(seed, label, extent)
        assert not lesions.kinds.any()
        assert not lesions.density.any()
        assert not lesions.soft.any()
        assert lesions.shares == (0, 0)


def test_lesions_lie_in_the_lung_that_was_asked_for(half_ill, ill):
    for label, patients in half_ill.items():
        for scene, lesions in patients:
            assert not lesions.kinds[~scene.lung].any()
            # Beyond its outline what fills a lung fades out within a centimetre and a half.
            reach = 2 * round(1.5 * scene.pose.scale) + 1
            near = cv2.dilate(scene.lung.astype(np.uint8), np.ones((reach, reach), np.uint8))
            assert lesions.density[near == 0].max() < 0.01
        for seed in range(4):
            scene, lesions = ill(seed, label, (0, 2))
            assert not lesions.kinds[scene.lungs[0]].any()
            assert lesions.kinds[scene.lungs[1]].any()


def test_lesions_are_fields_and_kinds(half_ill):
    for patients in half_ill.values():
        for scene, lesions in patients[:6]:
            for field in (lesions.density, lesions.soft):
                assert field.shape == scene.pose.shape
                assert field.dtype == np.float32
                assert np.isfinite(field).all()
                assert field.min() >= 0
            assert lesions.kinds.dtype == np.uint8
            assert set(np.unique(lesions.kinds)) <= {0, *KINDS.values()}
            # What is called ill attenuates, and most of what attenuates is called ill.
            added = lesions.density + lesions.soft
            covered = lesions.kinds > 0
            assert added[covered].mean() > 10 * added[~covered].mean()


def test_covid_prefers_the_pleura_and_the_bases(half_ill):
    def away(field, scene, lesions):
        return field(scene)[lesions.kinds > 0].mean() - field(scene)[scene.lung].mean()

    def mean(label, field):
        return np.mean([away(field, *patient) for patient in half_ill[label]])

    assert mean("covid", lambda scene: scene.thorax.across) > mean("viral", lambda scene: scene.thorax.across) + 0.08
    assert mean("covid", lambda scene: scene.thorax.across) > 0.05
    assert mean("viral", lambda scene: scene.thorax.across) < 0
    rows = {label: mean(label, lambda scene: scene.pose.y) for label in DISEASES}
    assert rows["covid"] > rows["viral"] + 0.4
    assert rows["covid"] > 0.8


def test_each_disease_has_its_kinds(half_ill):
    def share(label, kind):
        return np.mean([(les.kinds == KINDS[kind]).sum() / (les.kinds > 0).sum() for _, les in half_ill[label]])

    assert share("bacterial", "consolidation") > 0.6
    assert share("covid", "ground-glass") > 0.4
    assert share("viral", "interstitial") > 0.35
    assert share("viral", "consolidation") < 0.2
    assert share("pathological", "nodule") > 0.12
    assert max(share(label, "nodule") for label in ("covid", "viral", "bacterial")) == 0


def test_consolidation_is_denser_than_ground_glass(half_ill):
    found = {kind: [] for kind in KINDS}
    for patients in half_ill.values():
        for _, lesions in patients:
            for kind, value in KINDS.items():
                if (lesions.kinds == value).sum() > 30:
                    found[kind].append(lesions.density[lesions.kinds == value].mean())
    assert np.mean(found["consolidation"]) > 1.3 * np.mean(found["ground-glass"])
    assert np.mean(found["nodule"]) == 0, "a nodule stands beside the air, not in its place"


def test_bacterial_lesions_gather_around_a_point(half_ill):
    def spread(label):
        return np.mean(
            [
                np.hypot(scene.pose.x[ill].std(), scene.pose.y[ill].std())
                / np.hypot(scene.pose.x[lung].std(), scene.pose.y[lung].std())
                for scene, lesions in half_ill[label]
                for lung in scene.lungs
                for ill in [lung & (lesions.kinds > 0)]
            ]
        )

    assert spread("bacterial") < 0.95 * spread("viral")


def test_lesions_are_the_days(ill):
    _, today = ill(3, "covid", (2, 3))
    _, again = ill(3, "covid", (2, 3))
    np.testing.assert_array_equal(today.density, again.density)
    _, later = ill(3, "covid", (2, 3), visit=(3, 77))
    assert (today.kinds > 0).sum() > 0
    assert ((today.kinds > 0) != (later.kinds > 0)).any()


@pytest.mark.parametrize("label", DISEASES)
def test_another_shot_of_the_day_shows_the_same_lesions(ill, dice, label):
    overlaps = []
    for seed in range(12):
        _, one = ill(seed, label, (2, 2))
        _, other = ill(seed, label, (2, 2), exposure=(seed, 77))
        overlaps.append(dice(one.kinds, other.kinds))
    assert min(overlaps) > 0.6, np.round(overlaps, 2)
    assert np.median(overlaps) > 0.85


def test_all_diseases_can_be_drawn():
    assert set(DISEASES) == set(LABELS) - {"normal"}
    assert all(sum(disease.kinds) == pytest.approx(1) for disease in DISEASES.values())
