from dataclasses import replace

import pytest

from cxrtool.commands.fuse.joint import JointOptions, fuse_joint
from cxrtool.data.tables.manifest import read_table, write_table
from cxrtool.data.tables.predictions import read_predictions
from cxrtool.errors import InputError, UsageError


@pytest.fixture
def correct(joint_runs, settings, tmp_path):
    def call(*sources):
        fuse_joint(JointOptions(sources or joint_runs, prior_correct=True), replace(settings, out=tmp_path / "out.csv"))
        return read_predictions(tmp_path / "out.csv")

    return call


def covid_share(run, fold):
    """By hand: every third image is covid."""
    rows = [row for row in read_table(run / "splits.csv").rows if (row["fold"], row["subset"]) == (fold, "train")]
    return sum(int(row["image_id"][1:]) % 3 == 2 for row in rows) / len(rows)


def test_odds_are_scaled_by_the_shares_of_each_fold(correct, joint_runs, listener):
    for row in correct().rows:
        p, q = (covid_share(run, row["fold"]) for run in joint_runs)
        assert p < q
        before, after = float(row["probability_b_uncorrected"]), float(row["probability_b"])
        odds = before / (1 - before) * (p / (1 - p)) / (q / (1 - q))
        assert after == pytest.approx(odds / (1 + odds), abs=1e-8)
        assert bool(row["conflict"]) == (float(row["probability_a"]) < 0.5 <= after)
    told = "\n".join(listener.said)
    assert "prevalence of covid in the training subsets: " in told
    assert "the mix of the other classes is not corrected" in told


def test_only_runs_have_a_prior(correct, joint_runs):
    first, second = joint_runs
    with pytest.raises(UsageError, match="expected B to be a whole run with its manifest"):
        correct(first / "r0f0", second / "r0f0")
    with pytest.raises(UsageError, match=r"expected runs with their splits.csv"):
        correct(first / "r0f0", second)


def test_a_training_image_of_unknown_label_is_named(correct, joint_runs):
    path = joint_runs[1] / "manifest.csv"
    table = read_table(path)
    write_table(path, table.columns, [row for row in table.rows if row["image_id"] != "i16"])
    with pytest.raises(InputError, match="found no label for 1, such as i16"):
        correct()


def test_a_class_that_is_all_or_nothing_has_no_odds(correct, joint_runs):
    path = joint_runs[1] / "manifest.csv"
    table = read_table(path)
    write_table(path, table.columns, [{**row, "label": "rest"} for row in table.rows])
    with pytest.raises(
        InputError, match=r"expected images of covid and of the rest in the training subset of .*found 0 of"
    ):
        correct()
