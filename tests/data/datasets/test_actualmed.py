def test_inconclusive_cases_stay_unlabelled(published, listed):
    rows = listed("actualmed", published("actualmed"))
    assert {name: (record.columns["label"], record.columns["patient_id"]) for name, record in rows.items()} == {
        "images/CR.1.2.840.png": ("", "ANON196"),
        "images/CR.1.2.841.png": ("No finding", "ANON56"),
        "images/DX.1.2.842.png": ("COVID-19", "ANON196"),
    }
    assert {record.columns["source"] for record in rows.values()} == {"actualmed"}
    assert rows["images/CR.1.2.840.png"].columns["notes"].startswith("Inconclusive, ")


def test_a_row_without_a_file_is_not_lost(published, listed):
    root = published("actualmed")
    table = root / "metadata.csv"
    table.write_text(table.read_text().replace("CR.1.2.841.png", ""))
    assert "line 3" in str(listed("actualmed", root)[""].path)
