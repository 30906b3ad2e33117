import pytest

from cxrtool.data.datasets.readings import label_of, read_reading


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Patient's Sex: F\nPatient's Age: 027Y\nnormal  \n", ("27", "F", "normal")),
        ("Patient's Sex: M\nPatient's Age: 061Y\nimproved\nStable.", ("61", "M", "improved Stable.")),
        ("male 45yrs\nnormal", ("45", "M", "normal")),
        ("Female, 32yrs\n\nSTB\n", ("32", "F", "STB")),
        ("male 24days\nPTB", ("0.07", "M", "PTB")),
        ("male 8months\nnormal", ("0.67", "M", "normal")),
        ("", ("", "", "")),
    ],
)
def test_age_sex_and_finding(tmp_path, text, told):
    (tmp_path / "ClinicalReadings").mkdir()
    (tmp_path / "ClinicalReadings" / "a.txt").write_text(text)
    row = read_reading(tmp_path, "a")
    assert (row["age"], row["sex"], row["reading"]) == told


def test_without_a_reading_nothing_is_told(tmp_path):
    assert read_reading(tmp_path, "a") == {}


def test_the_name_s_last_digit_is_the_class():
    assert [label_of(f"CHNCXR_0001_{digit}") for digit in "01x"] == ["normal", "tuberculosis", ""]
