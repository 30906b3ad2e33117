import sys

import pytest

from cxrtool.errors import CxrtoolError
from cxrtool.training import tracking
from cxrtool.training.tracking import TRACKERS, require

pytest.importorskip("tensorboard", reason="needs the extra `track`")


def row(epoch, loss=1.0, **more):
    return {"epoch": epoch, "lr": 0.5, "train_loss": loss, "validation_loss": None, "train_accuracy": 0.25, **more}


def events(folder):
    """The tag, epoch and value of everything in a folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder)).Reload()
    return {tag: [(event.step, event.value) for event in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_every_figure_of_an_epoch_is_written_under_what_it_measures(tmp_path):
    with TRACKERS["tensorboard"].open(tmp_path / "r0f0") as write:
        write([row(1)])
        assert events(tmp_path / "r0f0") == {
            "lr": [(1, 0.5)], "loss/train": [(1, 1.0)], "accuracy/train": [(1, 0.25)],
        }  # fmt: skip
        write([row(2, 0.5, validation_loss=2.0)])
    found = events(tmp_path / "r0f0")
    assert found["loss/train"] == [(1, 1.0), (2, 0.5)]
    assert found["loss/validation"] == [(2, 2.0)]


def test_a_second_record_replaces_the_first_and_nothing_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for loss in (3.0, 4.0):
        with TRACKERS["tensorboard"].open(tmp_path) as write:
            write([row(1, loss)])
    assert events(tmp_path)["loss/train"] == [(1, 4.0)]
    assert len(list(tmp_path.glob("events*"))) == 1
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_tracker_that_is_not_there_is_told_with_its_extra(monkeypatch):
    require("tensorboard")
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(CxrtoolError, match="--track tensorboard needs tensorboard") as caught:
        require("tensorboard")
    assert "cxrtool[track]" in caught.value.hint


def test_the_help_names_the_trackers_without_loading_one():
    import subprocess

    code = "import sys, cxrtool.commands.train; print({'torch', 'tensorboard'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
