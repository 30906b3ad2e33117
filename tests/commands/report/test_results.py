from cxrtool.commands.report.results import CAPTIONS, caption_of, default_groups, first_lines


def test_groups_are_those_that_divide_the_images():
    rows = [
        {"severity": "", "source": "a", "view": "PA", "age": "30", "sex": "F"},
        {"severity": "mild", "source": "b", "view": "PA", "age": "70", "sex": "M"},
    ]
    assert default_groups(rows) == "source,sex,age:18,40,65"
    assert default_groups([{**row, "severity": name} for row, name in zip(rows, "ab", strict=True)]).startswith(
        "severity,"
    )
    many = [{"source": f"s{k}", "age": str(k)} for k in range(13)]
    assert default_groups(many) == "age:18,40,65"
    assert default_groups([]) is None


def test_pictures_without_a_caption_of_their_own_say_their_name():
    assert caption_of("new_thing") == "New thing."
    assert caption_of("roc") == CAPTIONS["roc"]


def test_first_lines_tell_the_main_figures():
    def measure(value):
        return {"value": value, "low": value - 0.1, "high": value + 0.05}

    summary = {
        "overall": {"balanced_accuracy": measure(0.8), "accuracy": measure(0.7), "macro_auc": measure(0.6)},
        "per_class": {"a": {"auc": measure(0.9), "sensitivity": measure(0.5), "specificity": measure(0.4)}, "b": {}},
        "classes": ["a", "b"],
        "positive": "a",
        "images": 3,
        "patients": 2,
        "patients_known": True,
        "interval": {"confidence": 0.95},
    }
    (line,) = first_lines({"inside": summary})
    assert line == (
        "inside: Sensitivity for a 0.50 (0.40-0.55), specificity 0.40 (0.30-0.45), balanced accuracy 0.80 (0.70-0.85), "
        "accuracy 0.70 (0.60-0.75), AUC 0.90 (0.80-0.95), on 3 test images of 2 patients; 95% intervals in brackets."
    )
    three = {**summary, "positive": None, "classes": ["a", "b", "c"], "patients_known": False}
    assert "AUC, mean over the classes 0.60" in first_lines({"": three})[0]
