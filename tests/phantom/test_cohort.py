"""Who is drawn: nothing but the lesions may tell the class, unless it is planted."""

import itertools
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from scipy.stats import chi2_contingency

from cxrtool.errors import UsageError
from cxrtool.phantom.cohort import (
    CLASSES,
    PATTERNS,
    SEVERITIES,
    SUBSETS,
    Cohort,
    draw_patient,
    draw_shots,
    severity_of,
)
from cxrtool.phantom.plants import PLANTS, SIZES, TWINS
from cxrtool.phantom.sources import BORDERS, MARKERS, SOURCES
from cxrtool.phantom.subject import LABELS

IMAGES = 3000

SIGNS = {
    "age": lambda shots: str(shots[0].subject.age // 10),
    "sex": lambda shots: shots[0].subject.sex,
    "view": lambda shots: shots[0].subject.view,
    "source": lambda shots: shots[0].source.name,
    "marker": lambda shots: shots[0].source.marker,
    "border": lambda shots: shots[0].source.border,
    "size": lambda shots: str((shots[0].source.height, shots[0].source.width)),
    "visits": lambda shots: str(len(shots)),
    "subset": lambda shots: shots[0].subset,
    "place in the set": lambda shots: str(int(shots[0].patient_id[1:]) % 20),
}
"""What may be seen of a patient beside the lungs."""


@cache
def shots_of(cohort):
    return tuple(draw_shots(cohort))


def by_patient(cohort):
    return [list(shots) for _, shots in itertools.groupby(shots_of(cohort), lambda shot: shot.patient_id)]


def chance(patients, sign):
    """How likely the signs go so differently with the classes by chance alone."""
    pairs = Counter((shots[0].subject.label, sign(shots)) for shots in patients)
    labels, values = sorted({a for a, _ in pairs}), sorted({b for _, b in pairs})
    return chi2_contingency([[pairs[a, b] for b in values] for a in labels]).pvalue


def first_visits(cohort, label):
    return [shots[0].subject.extent for shots in by_patient(cohort) if shots[0].subject.label == label]


@pytest.fixture(scope="module")
def plain():
    return Cohort(IMAGES, seed=3, classes=LABELS)


@pytest.fixture(scope="module")
def patients(plain):
    return by_patient(plain)


@pytest.mark.parametrize("sign", SIGNS)
def test_nothing_but_the_lungs_tells_the_class(patients, sign):
    assert chance(patients, SIGNS[sign]) > 0.0005


@pytest.mark.parametrize("plant", ["marker", "border", "size", "source", "age"])
def test_a_planted_sign_tells_it_and_no_other_does(plain, plant):
    planted = by_patient(replace(plain, plants=(plant,), strength=0.5))
    found = {name for name, sign in SIGNS.items() if chance(planted, sign) < 1e-12}
    # A source brings its own letter, border and size; who is old or small is taken lying.
    brought = {"source": {"marker", "border", "size"}, "age": {"view"}}
    assert plant in found
    assert found <= {plant} | brought.get(plant, set())


def test_a_patient_follows_from_seed_and_number_alone(plain):
    shots = shots_of(plain)
    assert shots == tuple(draw_shots(plain))
    assert tuple(draw_shots(plain, 1234)) == shots[1234:]
    assert shots_of(replace(plain, count=77)) == shots[:77]
    assert draw_patient(plain, 42) == [shot for shot in shots if shot.patient_id == "p000042"]
    other = shots_of(replace(plain, seed=4))
    assert sum(a.subject.age == b.subject.age for a, b in zip(shots, other, strict=True)) < IMAGES / 10


def test_every_random_number_has_a_seed_of_its_own(plain):
    subjects = [shot.subject for shot in shots_of(plain)]
    assert len({subject.exposure for subject in subjects}) == len({subject.visit for subject in subjects}) == IMAGES
    assert len({subject.body for subject in subjects}) == len({shot.patient_id for shot in shots_of(plain)})
    seeds = [seed for subject in subjects[:50] for seed in {subject.body, subject.visit, subject.exposure}]
    # What numpy makes of a seed differs too: it fills short ones up with zeros.
    first = {np.random.default_rng(list(seed)).random() for seed in seeds}
    assert len(first) == len(set(seeds))


def test_ids_are_unique_safe_and_silent(plain):
    shots = shots_of(plain)
    assert len({shot.image_id for shot in shots}) == IMAGES
    assert shots[0].image_id == "p000000-0"
    assert all(shot.image_id.startswith(f"{shot.patient_id}-") for shot in shots)
    assert all(shot.written_id == shot.patient_id for shot in shots)


@pytest.mark.parametrize("count", [1, 30, 300])
def test_classes_have_equal_shares(count):
    patients = by_patient(Cohort(count))
    counts = Counter(shots[0].subject.label for shots in patients)
    assert max(counts.values()) - min(counts[name] for name in CLASSES) <= 1
    assert sum(map(len, patients)) == count


def test_even_a_small_set_holds_every_severity():
    for seed in range(20):
        extents = first_visits(Cohort(24, seed=seed), "covid")
        assert {severity_of("covid", sum(extent)) for extent in extents} == set(SEVERITIES), seed


def test_severities_are_drawn_equally_often(patients):
    totals = [sum(shots[0].subject.extent) for shots in patients if shots[0].subject.label == "covid"]
    counts = Counter(severity_of("covid", total) for total in totals)
    assert max(counts.values()) - min(counts.values()) <= 1
    assert set(totals) == set(range(9))


def test_diseases_spread_by_their_patterns_and_overlap(patients):
    alone = {}
    for label, pattern in PATTERNS.items():
        extents = [shot.subject.extent for shots in patients for shot in shots if shot.subject.label == label]
        assert all(0 <= part <= 4 for extent in extents for part in extent)
        assert {sum(extent) for extent in extents} == set(range(min(pattern.totals), max(pattern.totals) + 1))
        ill = [extent for extent in extents if 2 <= sum(extent) <= 4]
        alone[label] = np.mean([0 in extent for extent in ill]) if ill else None
        right = np.mean([extent[0] >= extent[1] for extent in extents if extent[0] != extent[1]] or [0.5])
        assert 0.4 < right < 0.6, f"{label} prefers a side"
    assert alone.pop("normal") is None
    assert alone["bacterial"] > 0.7
    assert alone["pathological"] > 0.7
    assert alone["viral"] < 0.4
    assert alone["covid"] < 0.4
    # None is a matter of course: the spread alone must not tell one disease from another.
    assert all(0.05 < share < 0.95 for share in alone.values())


def test_an_illness_changes_from_visit_to_visit_and_stays_on_its_side(patients):
    changed, kept = 0, 0
    for shots in patients:
        extents = [shot.subject.extent for shot in shots]
        changed += len(set(extents)) > 1
        if len(shots) > 1 and shots[0].subject.label == "bacterial" and 0 in extents[0] and 0 in extents[1]:
            kept += 1
            assert extents[0].index(0) == extents[1].index(0)
        for name in ("label", "age", "sex", "body"):
            assert len({getattr(shot.subject, name) for shot in shots}) == 1
    assert changed > 80
    assert kept > 10


def test_the_people_are_as_described(patients):
    shots = [shot for each in patients for shot in each]
    ages = np.array([each[0].subject.age for each in patients])
    # Four standard errors of about 2,400 patients.
    assert abs((ages <= 12).mean() - 0.2) < 0.033
    assert set(ages) == {*range(1, 13), *range(18, 91)}
    assert abs(np.mean([shot.subject.view == "AP" for shot in shots]) - 0.35) < 0.04
    assert abs(np.mean([len(each) for each in patients]) - 1.25) < 0.03
    assert {len(each) for each in patients} == {1, 2, 3}
    for name, share in SUBSETS.items():
        assert abs(np.mean([each[0].subset == name for each in patients]) - share) < 0.04
        assert all(len({shot.subset for shot in each}) == 1 for each in patients)
    for name in SOURCES:
        assert abs(np.mean([each[0].source.name == name for each in patients]) - 1 / len(SOURCES)) < 0.03


@pytest.mark.parametrize(("share", "ages"), [(0.0, {*range(18, 91)}), (1.0, {*range(1, 13)})])
def test_all_or_no_children(plain, share, ages):
    assert {shot.subject.age for shot in shots_of(replace(plain, children=share))} == ages


def test_sources_are_chosen(plain):
    chosen = tuple(SOURCES)[1:3]
    found = {shot.source.name for shot in shots_of(replace(plain, sources=tuple((name, 1.0) for name in chosen)))}
    assert found == set(chosen)


def test_sources_come_as_often_as_their_weights_say():
    one, other = tuple(SOURCES)[:2]
    shots = shots_of(Cohort(4000, sources=((one, 3.0), (other, 1.0))))
    patients = {shot.patient_id: shot.source.name for shot in shots}
    share = list(patients.values()).count(one) / len(patients)
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / len(patients)) ** 0.5


@pytest.mark.parametrize("plant", PLANTS)
def test_of_no_strength_a_plant_is_none(plain, plant):
    assert shots_of(replace(plain, plants=(plant,), strength=0.0)) == shots_of(plain)


@pytest.mark.parametrize(
    ("plant", "styles", "seen"),
    [
        ("marker", MARKERS, lambda shot: shot.source.marker),
        ("border", BORDERS, lambda shot: shot.source.border),
        ("size", SIZES, lambda shot: (shot.source.height, shot.source.width)),
        ("source", tuple(SOURCES), lambda shot: shot.source.name),
        ("age", (True, False, False, False, False), lambda shot: shot.subject.age <= 5),
    ],
)
def test_a_plant_goes_with_the_class_as_often_as_its_strength_says(plain, plant, styles, seen):
    expected = dict(zip(LABELS, styles, strict=False))
    full = shots_of(replace(plain, plants=(plant,)))
    assert all(seen(shot) == expected[shot.subject.label] for shot in full)
    assert all(shot.planted == (plant,) for shot in full)
    before = {shot.image_id: shot for shot in shots_of(plain)}
    half = shots_of(replace(plain, plants=(plant,), strength=0.5))
    followers = [shot for shot in half if shot.planted]
    assert abs(len(followers) / IMAGES - 0.5) < 0.03
    assert all(seen(shot) == expected[shot.subject.label] for shot in followers)
    assert all(shot == before[shot.image_id] for shot in half if not shot.planted)
    for shot in followers:
        then = before[shot.image_id]
        assert (shot.subject.extent, shot.subject.sex, shot.subset) == (
            then.subject.extent,
            then.subject.sex,
            then.subset,
        )


def test_plants_go_together(plain):
    both = shots_of(replace(plain, plants=("border", "marker")))
    assert all(shot.planted == ("marker", "border") for shot in both)
    alone = shots_of(replace(plain, plants=("marker",), strength=0.5))
    beside = shots_of(replace(plain, plants=("marker", "border"), strength=0.5))
    assert [shot.source.marker for shot in alone] == [shot.source.marker for shot in beside]


@pytest.mark.parametrize("plants", [TWINS[:1], TWINS[1:], TWINS])
def test_some_patients_return_in_another_subset(plain, plants):
    shots = shots_of(replace(plain, plants=plants))
    known = {shot.image_id: shot for shot in shots}
    twins = [shot for shot in shots if shot.twin_of]
    for kind in plants:
        returned = {shot.patient_id for shot in twins if shot.planted[-1] == kind}
        assert 0.08 < len(returned) / len({shot.patient_id for shot in shots}) < 0.12
    for shot in twins:
        original = known[shot.twin_of]
        assert not original.twin_of
        assert shot.patient_id != original.patient_id
        assert shot.subset != original.subset
        assert shot.source == original.source
        if shot.planted[-1] == "duplicate":
            assert (shot.subject, shot.written_id) == (original.subject, original.written_id)
        else:
            assert shot.subject != original.subject
            assert replace(shot.subject, exposure=original.subject.exposure) == original.subject
            assert shot.written_id == shot.patient_id
    assert len({shot.subset for shot in twins}) == len(SUBSETS)
    assert len({(shot.subject, shot.source) for shot in twins if shot.planted[-1] == "near-duplicate"}) == sum(
        shot.planted[-1] == "near-duplicate" for shot in twins
    )


@pytest.mark.parametrize("count", [12, 13, 25, 60])
def test_even_in_a_small_set_two_return(count):
    for seed, kind in itertools.product(range(30), TWINS):
        shots = shots_of(Cohort(count, seed=seed, plants=(kind,)))
        assert len({shot.patient_id for shot in shots if shot.twin_of}) >= 2, (seed, kind)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"count": 0}, "--count: expected at least 1 radiograph, found 0"),
        ({"classes": ("normal", "flu")}, "--classes: expected some of normal, pathological, covid, viral, bacterial"),
        ({"classes": ("normal", "normal")}, "--classes: 'normal' is listed twice"),
        ({"classes": ()}, "--classes: expected at least one of normal"),
        ({"sources": (("nowhere", 1.0),)}, "--sources: expected some of .*, found 'nowhere'"),
        ({"sources": ((next(iter(SOURCES)), 0.0),)}, "--sources: expected a weight above 0, found .*=0"),
        ({"plants": ("luck",)}, "--plant: expected some of marker, .*, found 'luck'"),
        ({"children": 1.5}, "--children: expected a share from 0 to 1, found 1.5"),
        ({"strength": float("nan")}, "--plant-strength: expected a share from 0 to 1, found nan"),
        ({"plants": ("marker",), "classes": ("covid",)}, "--plant marker: expected at least two classes"),
        (
            {"plants": ("source",), "sources": tuple((name, 1.0) for name in SOURCES)[:2]},
            "found 2 sources for 3 classes",
        ),
        ({"plants": TWINS, "count": 23}, "--plant duplicate,near-duplicate: expected a --count of at least 24"),
    ],
)
def test_what_cannot_be_is_refused(changes, told):
    with pytest.raises(UsageError, match=told):
        Cohort(**{"count": 100, **changes})
