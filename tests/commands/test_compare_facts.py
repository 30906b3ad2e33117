import json

import pytest

from cxrtool.commands.compare import folders_of, read_facts
from cxrtool.data.tables.manifest import read_table
from cxrtool.errors import IncompleteError


@pytest.fixture
def run(study, train_study):
    return train_study(study, only=None, epochs=1)


def test_a_run_knows_its_network_and_what_it_took(study, run):
    facts = read_facts([run])
    values = facts.values
    assert (values["model"], values["weights"]) == ("covid-xnet", "drawn at random")
    assert values["parameters"] == values["trained_parameters"] == 434_050
    # One sixty-fourth of what 128 x 128 pixels take, but for the output layer.
    assert values["macs"] == (149_160_448 - 512) // 64 + 512
    assert (values["epochs"], values["images"]) == (1, 12)
    assert 0 < values["seconds"] < values["seconds_total"]
    assert (values["devices"], values["threads"]) == (["cpu"], [1])
    assert facts.fitted == {(str(r), str(f)): 12 for r in range(2) for f in range(3)}
    for r in range(2):
        for f in range(3):
            expected = {*study.assigned(r, f, "train"), *study.assigned(r, f, "validation")}
            assert {image for *pair, image in facts.seen if pair == [str(r), str(f)]} == expected


def test_seconds_are_the_mean_of_the_folds(run):
    for place, fold in enumerate(sorted(run.glob("r*f*"))):
        made = json.loads((fold / "run.json").read_text())
        made["training"]["seconds"] = 10.0 + place
        (fold / "run.json").write_text(json.dumps(made))
    values = read_facts([run]).values
    assert (values["seconds"], values["seconds_total"]) == (12.5, 75.0)


def test_what_one_fold_does_not_know_is_not_told(run, editable):
    editable(run)
    fold = run / "r0f1"
    made = json.loads((fold / "run.json").read_text())
    del made["training"]["seconds"], made["training"]["macs"]
    (fold / "run.json").write_text(json.dumps(made))
    (fold / "fitted_on.csv").unlink()
    facts = read_facts([run])
    assert not {"seconds", "seconds_total", "macs", "images"} & facts.values.keys()
    assert facts.values["parameters"] == 434_050
    assert ("0", "1") not in facts.fitted


def test_folds_and_files(run):
    assert read_facts([run / "r0f1"]).fitted == {("0", "1"): 12}
    two = read_facts([run / "r0f1", run / "r0f2"])
    assert set(two.fitted) == {("0", "1"), ("0", "2")}
    csv = run / "r0f1" / "predictions.csv"
    assert folders_of(csv) == []
    assert read_facts([csv]).values == {}


def test_missing_folds_are_told_or_allowed(run):
    (run / "r1f2" / "predictions.csv").unlink()
    with pytest.raises(IncompleteError, match="missing r1f2"):
        read_facts([run])
    assert len(read_facts([run], partial=True).fitted) == 5


def test_a_broken_file_is_not_known(run, editable):
    editable(run)
    (run / "r0f0" / "model.json").write_text("{")
    assert "model" not in read_facts([run / "r0f0"]).values
    assert len(read_table(run / "r0f0" / "fitted_on.csv")) == 16
