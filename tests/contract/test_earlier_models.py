"""Models and runs that were made before the house was rebuilt load, and give the same predictions."""

import shutil
from pathlib import Path

import pytest

from cxrtool.data.tables.manifest import read_table

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
RUNS = sorted(path.name for path in FIXTURES.iterdir())


@pytest.mark.parametrize("name", RUNS)
def test_predictions_are_the_same(cxr, study, tmp_path, name):
    quick = ("--allow-leakage", "--threads", "1", "--workers", "1", "--device", "cpu")
    done = cxr("predict", FIXTURES / name / "r0f0", study.folder, *quick, "-o", tmp_path / "answers.csv")
    assert done.code == 0, done.err
    found, before = (read_table(path).rows for path in (tmp_path / "answers.csv", FIXTURES / name / "answers.csv"))
    assert [row["image_id"] for row in found] == [row["image_id"] for row in before]
    for row, other in zip(found, before, strict=True):
        assert (row["predicted"], row["sha256"]) == (other["predicted"], other["sha256"])
        # Another processor may sum in another order.
        assert float(row["prob_covid"]) == pytest.approx(float(other["prob_covid"]), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", RUNS)
def test_an_earlier_run_is_read_by_every_command_that_reads_runs(cxr, study, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(FIXTURES / name, run)
    for command in (("info", run), ("info", run / "r0f0"), ("evaluate", run, "--partial")):
        done = cxr(*command)
        assert done.code == 0, done.err
    assert "covid" in done.out
    leaking = cxr("predict", run / "r0f0", study.folder, "--workers", "1", "--device", "cpu")
    assert leaking.code == 4, leaking.err
