from dataclasses import replace

import numpy as np
import pytest

from cxrtool.commands.fuse.mean import MeanOptions, fuse_mean
from cxrtool.data.tables.predictions import Predictions, read_predictions, write_predictions
from cxrtool.errors import InputError


def turned(predictions):
    """The same with its classes in another order."""
    return replace(predictions, classes=predictions.classes[::-1], probabilities=predictions.probabilities[:, ::-1])


def part(predictions, kept):
    rows = [predictions.rows[i] for i in kept]
    return Predictions(predictions.classes, rows, predictions.probabilities[kept], columns=predictions.columns)


@pytest.fixture
def join(settings, tmp_path):
    def call(*several):
        paths = tuple(tmp_path / f"{k}.csv" for k in range(len(several)))
        for path, predictions in zip(paths, several, strict=True):
            write_predictions(path, predictions)
        fuse_mean(MeanOptions(paths), replace(settings, out=tmp_path / "mean.csv"))
        return read_predictions(tmp_path / "mean.csv")

    return call


def test_the_mean_of_each_image_in_its_fold(join, make_predictions, listener):
    several = [make_predictions(24, repeats=2, folds=3, seed=seed) for seed in range(3)]
    found = join(several[0], turned(several[1]), several[2])
    expected = np.mean([predictions.probabilities for predictions in several], axis=0)
    assert found.classes == several[0].classes
    assert np.allclose(found.probabilities, expected, atol=1e-8)
    assert [row["predicted"] for row in found.rows] == [found.classes[k] for k in expected.argmax(axis=1)]
    assert [row["severity"] for row in found.rows] == [row["severity"] for row in several[0].rows]
    assert listener.said == ["averaged 48 predictions of 3 sources"]
    assert listener.warned == []


def test_only_where_all_have_answered(join, make_predictions, listener):
    first, second = make_predictions(24, seed=0), make_predictions(24, seed=1)
    assert len(join(part(first, range(20)), part(second, range(5, 24))).rows) == 15
    assert listener.warned == ["excluded 9 predictions that not all sources have: im0000, im0001, im0002, …"]


def test_another_fold_or_subset_is_no_answer(join, make_predictions):
    first, second = make_predictions(12, seed=0), make_predictions(12, seed=1)
    second.rows[0]["subset"], second.rows[1]["fold"] = "validation", "7"
    assert [row["image_id"] for row in join(first, second).rows] == [f"im{k:04}" for k in range(2, 12)]
    for row in second.rows:
        row["fold"] = "7"
    with pytest.raises(InputError, match=r"expected predictions for the same images .* found none among 24"):
        join(first, second)


def test_warnings_add_up(join, make_predictions):
    first, second = make_predictions(6, seed=0), make_predictions(6, seed=1)
    first.rows[0]["warning"], second.rows[0]["warning"], second.rows[1]["warning"] = "odd", "dark", "dark"
    assert [row["warning"] for row in join(first, second).rows[:3]] == ["odd; dark", "dark", ""]


def test_sources_that_do_not_fit_are_refused(join, make_predictions):
    first = make_predictions(6)
    with pytest.raises(InputError, match=r"1.csv: expected the classes covid, normal, pneumonia as in .*found a, b"):
        join(first, make_predictions(6, classes=("a", "b")))
    other = make_predictions(6)
    other.rows[2]["label"] = "covid"
    with pytest.raises(InputError, match=r"'im0002': expected the label 'normal' as in .*0.csv, found 'covid' in"):
        join(first, other)


def test_the_same_file_twice_is_told(settings, listener, make_predictions, tmp_path):
    write_predictions(tmp_path / "p.csv", make_predictions(6))
    fuse_mean(MeanOptions((tmp_path / "p.csv",) * 2), replace(settings, out=tmp_path / "mean.csv"))
    assert listener.warned == ["a source is listed twice and has twice the weight in the mean"]
