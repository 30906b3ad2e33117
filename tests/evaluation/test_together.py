import pytest

from cxrtool.evaluation.together import sheets, together


def measure(value):
    return {"value": value, "low": None if value is None else value - 0.1, "high": value}


def summary(accuracy, auc):
    return {
        "classes": ["a"],
        "positive": None,
        "images": 10,
        "overall": {"accuracy": measure(accuracy), "macro_auc": measure(auc)},
        "per_class": {"a": {"sensitivity": measure(accuracy), "auc": measure(auc)}},
    }


RUN = {"run": "x", "seed": "1", "model": "", "size": "8", "lr": "0.1"}


def test_mean_and_sample_standard_deviation():
    found = together([RUN] * 3, [summary(0.8, 0.9), summary(0.9, None), summary(1.0, None)])
    assert found["mean"]["accuracy"] == {"value": pytest.approx(0.9), "sd": pytest.approx(0.1), "n": 3}
    assert found["mean"]["macro_auc"] == {"value": 0.9, "sd": None, "n": 1}
    assert found["mean"]["sensitivity of a"]["value"] == pytest.approx(0.9)


def test_tables():
    found = {**summary(0.9, 0.9), "together": together([RUN] * 2, [summary(0.8, 0.9), summary(1.0, None)])}
    means, each = sheets(found, {"accuracy": "accuracy", "macro_auc": "AUC"}, "", 2)
    assert means.title == "2 runs together"
    assert means.rows[0] == ["accuracy", "0.900 ± 0.141", "2"]
    assert means.rows[1] == ["AUC", "0.900", "1"]
    assert each.rows == [
        ["x", "1", "-", "8", "0.1", "10", "0.800", "0.700", "0.800", "0.900"],
        ["x", "1", "-", "8", "0.1", "10", "1.000", "0.900", "1.000", "-"],
    ]
