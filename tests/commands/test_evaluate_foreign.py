"""Predictions of other tools in `evaluate`, `compare` and `report`; scikit-learn is the oracle."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, brier_score_loss, roc_auc_score

COUNT = 120


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Foreign predictions in the working directory: `truth`, `logits` of two classes, and their table."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(3)
    truth = (generator.random(COUNT) < 0.4).astype(int)
    logits = 1.5 * truth + generator.normal(size=COUNT) - 0.7
    table = pd.DataFrame(
        {
            "filename": [f"set/im{k:03}.png" for k in range(COUNT)],
            "y_true": np.where(truth == 1, "covid", "normal"),
            "y_score": 1 / (1 + np.exp(-logits)),
            "clinic": np.where(np.arange(COUNT) % 3 == 0, "A", "B"),
        }
    )
    return truth, logits, table


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def evaluate(cxr, *arguments):
    done = cxr("evaluate", *arguments)
    assert done.code == 0, done.err
    return done


def test_probabilities_agree_with_scikit_learn(cxr, made, tmp_path):
    truth, logits, table = made
    table.to_csv("p.csv", index=False)
    done = evaluate(cxr, "p.csv", "--positive", "covid", "--by", "clinic", "-o", "out")
    assert "Columns: image = filename; label = y_true; score of covid = y_score; taken as probability." in done.out
    found = metrics(tmp_path / "out")
    score = table["y_score"].to_numpy()
    assert found["overall"]["accuracy"]["value"] == pytest.approx(accuracy_score(truth, score > 0.5))
    assert found["per_class"]["covid"]["auc"]["value"] == pytest.approx(roc_auc_score(truth, logits))
    assert found["overall"]["average_precision"]["value"] == pytest.approx(average_precision_score(truth, score))
    assert found["overall"]["brier"]["value"] in (
        pytest.approx(brier_score_loss(truth, score)),
        pytest.approx(2 * brier_score_loss(truth, score)),
    )
    part = (table["clinic"] == "A").to_numpy()
    assert found["per_group"]["clinic"]["A"]["auc"]["value"] == pytest.approx(roc_auc_score(truth[part], score[part]))
    low, high = (found["per_class"]["covid"]["auc"][name] for name in ("low", "high"))
    assert low < roc_auc_score(truth, logits) < high


def test_ranking_scores_have_an_auc_and_nothing_else(cxr, made, tmp_path):
    truth, logits, table = made
    table.assign(y_score=logits, y_true=truth).to_csv("l.csv", index=False)
    done = evaluate(cxr, "l.csv", "--by", "clinic", "-o", "out")
    assert "no probabilities (from " in done.out
    found = metrics(tmp_path / "out")
    assert found["per_class"]["1"]["auc"]["value"] == pytest.approx(roc_auc_score(truth, logits))
    undefined = {name for name, measure in found["overall"].items() if measure["value"] is None}
    assert found["overall"].keys() - undefined == {"macro_auc", "average_precision"}
    assert all(found["overall"][name]["reason"] for name in undefined)
    assert (found["confusion"], found["calibration"], found.get("operating")) == (None, None, None)
    drawn = {path.name for path in (tmp_path / "out").glob("*.png")}
    assert drawn == {"roc.png", "precision_recall.png"}
    evaluate(cxr, "l.csv", "--positive", "1", "--format", "json")


def test_options_that_need_probabilities_are_refused(cxr, made):
    truth, logits, table = made
    table.assign(y_score=logits, y_true=truth).to_csv("l.csv", index=False)
    for option in (["--calibrated"], ["--sensitivity", "0.9", "--positive", "1"], ["--abstain"], ["--classes", "0,1"]):
        done = cxr("evaluate", "l.csv", *option)
        assert done.code == 2
        assert "expected probabilities in l.csv, found scores that only rank the images" in done.err.replace("./", "")


def test_predicted_classes_alone(cxr, made, tmp_path):
    truth, logits, table = made
    predicted = np.where(logits > 0.3, "covid", "normal")
    table.drop(columns="y_score").assign(prediction=predicted).to_csv("d.csv", index=False)
    evaluate(cxr, "d.csv", "--positive", "covid", "-o", "out")
    found = metrics(tmp_path / "out")
    assert found["overall"]["accuracy"]["value"] == pytest.approx(accuracy_score(truth, logits > 0.3))
    for name in ("macro_auc", "average_precision", "ece", "brier"):
        assert found["overall"][name]["value"] is None
    assert found["operating"]
    assert not list((tmp_path / "out").glob("roc.png"))


def test_softmax_of_logits_of_three_classes(cxr, made, tmp_path):
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, COUNT)
    logits = generator.normal(size=(COUNT, 3))
    logits[np.arange(COUNT), truth] += 1.2
    names = np.array(["covid", "normal", "pneumonia"])
    columns = {f"logit_{name}": logits[:, k] for k, name in enumerate(names)}
    pd.DataFrame({"image": range(COUNT), "target": names[truth], **columns}).to_csv("l.csv", index=False)
    evaluate(cxr, "l.csv", "-o", "out")
    found = metrics(tmp_path / "out")
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert found["overall"]["accuracy"]["value"] == pytest.approx(accuracy_score(truth, logits.argmax(axis=1)))
    wanted = roc_auc_score(truth, probabilities, multi_class="ovr", average="macro")
    assert found["overall"]["macro_auc"]["value"] == pytest.approx(wanted)
    # As scores of unknown meaning, each class is ranked by its own column.
    ranked = {name.replace("logit", "score"): values for name, values in columns.items()}
    pd.DataFrame({"image": range(COUNT), "target": names[truth], **ranked}).to_csv("s.csv", index=False)
    evaluate(cxr, "s.csv", "-o", "ranked")
    wanted = np.mean([roc_auc_score(truth == k, logits[:, k]) for k in range(3)])
    assert metrics(tmp_path / "ranked")["overall"]["macro_auc"]["value"] == pytest.approx(wanted)


def test_several_files_are_several_runs(cxr, made, tmp_path):
    truth, logits, table = made
    generator = np.random.default_rng(1)
    scores = [logits + generator.normal(size=COUNT) for _ in range(3)]
    for number, score in enumerate(scores):
        table.assign(y_score=score, y_true=truth).to_csv(f"run{number}.csv", index=False)
    done = evaluate(cxr, "run0.csv", "run1.csv", "run2.csv", "--positive", "1", "-o", "out")
    assert "The 3 files are 3 runs (repeats)" in done.out
    areas = [roc_auc_score(truth, score) for score in scores]
    found = metrics(tmp_path / "out")["per_class"]["1"]["auc"]
    assert found["mean_runs"] == pytest.approx(np.mean(areas))
    assert found["sd_runs"] == pytest.approx(np.std(areas, ddof=1))


def test_named_columns_of_a_workbook_and_of_a_german_csv(cxr, made):
    _, _, table = made
    renamed = table.rename(columns={"filename": "Bild", "y_true": "Befund", "y_score": "Wert"})
    renamed.to_csv("d.csv", index=False, sep=";", decimal=",")
    renamed.to_excel("d.xlsx", index=False)
    refused = cxr("evaluate", "d.csv")
    assert refused.code == 1
    assert refused.err.splitlines()[1] == "  name it: --label-column Befund"
    named = ["--id-column", "Bild", "--label-column", "Befund", "--score-column", "Wert", "--positive", "covid"]
    first, second = (evaluate(cxr, name, *named).out for name in ("d.csv", "d.xlsx"))
    assert first == second


def test_compare_and_report_read_them(cxr, made, tmp_path):
    truth, logits, table = made
    generator = np.random.default_rng(5)
    table.to_csv("one.csv", index=False)
    weak = logits + 2 * generator.normal(size=COUNT)
    table.rename(columns={"y_score": "Wert", "y_true": "Befund"}).assign(Wert=weak).to_csv("two.csv", index=False)
    evaluate(cxr, "two.csv", "--label-column", "Befund", "--score-column", "Wert", "--positive", "covid", "-o", "two")
    given = ["first=one.csv", "second=two", "--positive", "covid"]
    refused = cxr("compare", *given)
    assert refused.code == 2
    assert "--metric accuracy: expected predicted classes in second" in refused.err
    done = cxr("compare", *given, "--metric", "auc", "--format", "json")
    assert done.code == 0
    runs = json.loads(done.out)["runs"]
    assert runs["first"]["metric"]["value"] == pytest.approx(roc_auc_score(truth, logits))
    assert runs["second"]["metric"]["value"] == pytest.approx(roc_auc_score(truth, weak))
    assert runs["second"]["per_class"]["covid"]["sensitivity"]["value"] is None
    for name, words in (("one.csv", "taken as probability"), ("two", "no probabilities")):
        done = cxr("report", name, "--positive", "covid", "-o", "page.html", "--force")
        assert done.code == 0, done.err
        assert words in (tmp_path / "page.html").read_text()
