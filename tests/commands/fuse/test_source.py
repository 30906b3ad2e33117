import numpy as np
import pytest

from cxrtool.commands.fuse.source import Source
from cxrtool.data.tables.predictions import Predictions
from cxrtool.errors import InputError
from cxrtool.flow.fusing import key_of


def test_an_answer_is_of_one_fold_and_subset():
    row = {"image_id": "a", "repeat": "1", "fold": "2", "subset": "validation"}
    assert key_of(row) == ("a", "1", "2", "validation")
    assert key_of({"image_id": "a_t", "parent_id": "a", "generator": "covid"}, "a") == ("a", "", "", "test")


def test_an_image_answered_twice_is_named(tmp_path):
    row = {"image_id": "a", "repeat": "0", "fold": "1", "subset": "test"}
    source = Source(tmp_path, Predictions(["x", "y"], [row, dict(row)], np.full((2, 2), 0.5), "both"))
    with pytest.raises(
        InputError, match=r"both: expected one prediction .* found 'a' twice \(repeat '0', fold '1', test"
    ):
        _ = source.indices


def test_where_the_models_of_a_fold_lie(joint_runs, tmp_path):
    run = joint_runs[1]
    nothing = Predictions([], [], np.zeros((0, 0)))
    assert Source(run, nothing).folder_of(("0", "2")) == run / "r0f2"
    assert Source(run / "r0f2", nothing).folder_of(("0", "2")) == run / "r0f2"
    assert Source(run / "r0f2" / "predictions.csv", nothing).folder_of(("0", "2")) == run / "r0f2"
    assert Source(tmp_path / "p.csv", nothing).folder_of(("0", "2")) is None
    fitted = Source(run, nothing).fitted_on(("0", "0"))
    assert "i03" in fitted
    assert "i02" not in fitted
    (run / "splits.csv").unlink()
    assert Source(run, nothing).fitted_on(("0", "0")) == fitted
