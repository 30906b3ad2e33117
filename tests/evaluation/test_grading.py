"""The map from opaque shares to a rater's score: it never falls, finds a known map, and its intervals hold."""

import json

import numpy as np
import pytest

from cxrtool.errors import InputError
from cxrtool.evaluation.grading import COVERAGE, KNOTS, Grader, fit_grader, shares_of
from cxrtool.evaluation.scales import SCALES


def points(shares):
    """A map as raters might have it: a little disease counts at once."""
    return np.interp(shares, [0, 0.02, 0.5, 1], [0, 1, 3, 4])


def rated(count, seed, noise=0.6, regions=2):
    rng = np.random.default_rng(seed)
    shares = rng.beta(0.6, 1.4, (count, regions))
    return shares, np.clip(points(shares).sum(1) + rng.normal(0, noise, count), 0, 4 * regions)


def test_a_known_map_is_found_and_never_falls():
    shares, scores = rated(2000, 0, noise=0.3)
    grader = fit_grader("extent", shares, scores, np.arange(2000), 0)
    assert (np.diff(grader.points) >= 0).all()
    # Between the knots the map is a line, and 0 to 0.05 holds a bend: there it is an average.
    assert grader.points[2:] == pytest.approx(points(np.array(KNOTS[2:])), abs=0.12)
    more = np.linspace(0, 1, 50)
    totals = grader.regions(np.stack([more, more], 1)).sum(1)
    assert (np.diff(totals) >= 0).all()
    assert totals[0] >= 0
    assert totals[-1] <= SCALES["extent"].highest


def test_scores_of_regions_are_fitted_region_by_region():
    rng = np.random.default_rng(1)
    shares = rng.random((300, 6))
    scores = np.round(3 * shares)
    grader = fit_grader("brixia", shares, scores, np.arange(300), 0)
    assert np.abs(grader.regions(shares) - scores).mean() < 0.3


@pytest.mark.parametrize("count", [60, 400])
def test_nine_of_ten_new_ratings_are_in_their_interval(count):
    shares, scores = rated(count, 2)
    grader = fit_grader("extent", shares, scores, np.arange(count), 0)
    new, truth = rated(3000, 3)
    low, high = grader.intervals(new).T
    inside = ((low <= truth) & (truth <= high)).mean()
    assert COVERAGE - 0.05 < inside < COVERAGE + 0.07
    assert (low <= high).all()


def test_a_patient_is_never_in_the_fit_that_judges_it():
    shares, scores = rated(100, 4)
    patients = np.repeat(np.arange(50), 2)
    grader = fit_grader("extent", shares, scores, patients, 0)
    assert (grader.fold_of[::2] == grader.fold_of[1::2]).all()
    # A fit that had seen it would follow a score that is far off.
    spoiled = scores.copy()
    spoiled[:2] = 8 - spoiled[:2]
    again = fit_grader("extent", shares, spoiled, patients, 0)
    fold = grader.fold_of[0]
    assert again.folds[fold] == pytest.approx(grader.folds[fold])
    assert again.points != pytest.approx(grader.points)


def test_a_wild_rating_moves_the_map_little():
    shares, scores = rated(60, 7, noise=0.2)
    plain = fit_grader("extent", shares, scores, np.arange(60), 0)
    wild = scores.copy()
    wild[np.argsort(shares.sum(1))[25:31]] = 8
    moved = fit_grader("extent", shares, wild, np.arange(60), 0)
    # Six of sixty ratings are off by 5: a mean would move by half a point and more.
    middle = shares[np.argsort(shares.sum(1))[20:36]]
    assert np.abs(moved.regions(middle).sum(1) - plain.regions(middle).sum(1)).mean() < 0.35


def test_an_estimate_is_the_median_of_ratings_of_equal_images():
    shares, scores = np.full((50, 2), 0.2), np.repeat([1.0, 1.2, 1.4, 7.0, 8.0], 10)
    grader = fit_grader("extent", shares, scores, np.arange(50), 0)
    assert grader.regions(shares[:1]).sum() == pytest.approx(1.4, abs=0.3)
    assert scores.mean() > 3.5


def test_few_patients_are_refused():
    shares, scores = rated(9, 5)
    with pytest.raises(InputError, match="at least 10 patients, found 9"):
        fit_grader("extent", shares, scores, np.arange(9), 0)


def test_a_grader_survives_json_and_a_spoiled_one_is_refused():
    shares, scores = rated(60, 6)
    grader = fit_grader("extent", shares, scores, np.arange(60), 0)
    content = json.loads(json.dumps(grader.as_json()))
    again = Grader.of_json(content)
    assert again.intervals(shares) == pytest.approx(grader.intervals(shares), abs=1e-4)
    falling = {**content, "points": content["points"][::-1]}
    for spoiled in (falling, {**content, "scale": "other"}, {**content, "errors": [-1.0] * 60}, {"scale": "extent"}):
        with pytest.raises(ValueError, match=r".+"):
            Grader.of_json(spoiled)


def test_rows_without_a_share_are_left_out():
    rows = [{"opacity_right": "0.5", "opacity_left": "0.25"}, {"opacity_right": "0.5", "opacity_left": ""}]
    shares, kept = shares_of(rows, "extent")
    assert kept == [0]
    assert shares.tolist() == [[0.5, 0.25]]


def test_ratings_that_were_fitted_are_in_their_interval_no_more_often_than_new_ones():
    """Of few images: a fit's own error is not among those that its interval is made of."""
    inside, own = [], []
    for seed in range(30):
        shares, scores = rated(15, seed, noise=1.2)
        grader = fit_grader("extent", shares, scores, np.arange(15), seed)
        for fold in range(len(grader.folds)):
            here = grader.fold_of == fold
            low, high = grader.intervals(shares[here], fold).T
            own += [*((low <= scores[here]) & (scores[here] <= high))]
        low, high = grader.intervals(shares).T
        inside += [*((low <= scores) & (scores <= high))]
    assert np.mean(inside) > 0.97
    assert COVERAGE - 0.05 < np.mean(own) < 0.96


@pytest.mark.parametrize("cell", ["40", "-0.1", "1.01", "inf", "abc", "0.5 %"])
def test_a_share_outside_of_0_to_1_is_refused(cell):
    rows = [{"opacity_right": "0.5", "opacity_left": "0.25"}, {"opacity_right": cell, "opacity_left": "0.5"}]
    with pytest.raises(InputError, match=r"line 3: expected a share from 0 to 1 in opacity_right, found"):
        shares_of(rows, "extent", lambda index: f"line {index + 2}")


@pytest.mark.parametrize("cell", ["nan", " ", "None"])
def test_a_word_for_a_missing_share_is_no_share(cell):
    rows = [{"opacity_right": cell, "opacity_left": "0.5"}, {"opacity_right": "0,5", "opacity_left": "1"}]
    shares, kept = shares_of(rows, "extent")
    assert (shares.tolist(), kept) == ([[0.5, 1.0]], [1])
