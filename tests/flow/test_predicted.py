import pytest

from cxrtool.flow.predicted import IMAGES, Beside, beside


def test_the_files_have_the_name_of_the_table(tmp_path):
    assert beside(tmp_path / "a.b.csv", IMAGES) == tmp_path / "a.b.images.csv"


def test_without_files_nothing_is_known(tmp_path):
    found = Beside.read(tmp_path / "answers.csv")
    assert (found.made, found.model, list(found.folders), dict(found.images)) == ({}, None, [], {})
    assert found.lost.startswith("answers.run.json is missing")


@pytest.mark.parametrize("text", ["{", "[]", '{"command": "predict"}'])
def test_what_is_not_ours_is_not_read(tmp_path, text):
    (tmp_path / "answers.run.json").write_text(text)
    (tmp_path / "answers.images.csv").write_text("colour\nred\n")
    found = Beside.read(tmp_path / "answers.csv")
    assert not found.made
    assert not found.images


def test_a_model_that_is_gone_is_named(tmp_path):
    made = '{"model": "run", "members": [{"folder": "run/r0f0", "digest": "1"}], "training_images": null}'
    (tmp_path / "answers.run.json").write_text(made)
    found = Beside.read(tmp_path / "answers.csv")
    assert found.lost == f"{tmp_path / 'run' / 'r0f0'} is not there anymore"
    assert found.model is None
