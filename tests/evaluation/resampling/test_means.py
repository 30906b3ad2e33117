"""The mean of one number an image, with an interval over patients."""

import numpy as np
import pytest

from cxrtool.evaluation.resampling.intervals import RESAMPLES, draw_patients, measure
from cxrtool.evaluation.resampling.means import mean_of_images, mean_over_patients


@pytest.fixture
def numbers():
    rng = np.random.default_rng(0)
    patients = rng.integers(0, 40, 100)
    patients[:40] = np.arange(40)
    return rng.random(100), patients.tolist()


def test_a_patient_is_drawn_with_all_images_of_it(numbers):
    values, patients = numbers
    counts = draw_patients(np.zeros(40, np.intp), RESAMPLES, np.random.default_rng(3))[patients].astype(float)
    expected = measure(
        float(values.mean()), (values[:, None] * counts).sum(0) / counts.sum(0), patients=40, proportion=False
    )
    found = mean_over_patients(values, patients, 3, proportion=False)
    assert (found.value, found.method) == (expected.value, "patient bootstrap")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-14)


def test_names_of_patients_count_as_their_numbers(numbers):
    values, patients = numbers
    named = [f"p{number:02}" for number in patients]
    assert mean_over_patients(values, named, 3, proportion=False) == mean_over_patients(
        values, patients, 3, proportion=False
    )


def test_a_share_of_all_or_none_has_wilsons_interval(numbers):
    _, patients = numbers
    found = mean_over_patients([1.0] * 100, patients, 3, proportion=True)
    assert (found.value, found.high, found.method) == (1.0, 1.0, "Wilson")


def test_rows_tell_whose_an_image_is(numbers):
    values, patients = numbers
    rows = [{"image_id": str(i), "patient_id": f"p{number}"} for i, number in enumerate(patients)]
    found = mean_of_images(rows, values, 3, proportion=False)
    first = {number: place for place, number in enumerate(dict.fromkeys(patients))}
    figure = mean_over_patients(values, [first[number] for number in patients], 3, proportion=False)
    assert found == {**figure.as_json(), "images": 100, "patients": 40}
