def test_a_manifest_on_standard_output_has_absolute_paths(cxr, tiny):
    outcome = cxr("select", tiny.origin, "--where", "age < 21")
    assert outcome.out.splitlines()[1].split(",")[1] == str(tiny.origin.parent / "im000.png")
    assert outcome.err == "2 images, 22 excluded\n"


def test_relabel_can_be_repeated(cxr, tiny):
    outcome = cxr("select", tiny.origin, "--relabel", "covid=ill", "--relabel", "normal=well", "--per-class", "1")
    assert sorted(line.split(",")[2] for line in outcome.out.splitlines()[1:]) == ["ill", "well"]


def test_a_folder_says_where_the_reasons_are(cxr, tiny, tmp_path):
    outcome = cxr("select", tiny.origin, "--one-per", "patient_id", "-o", tmp_path / "chosen")
    assert outcome.out == ""
    assert outcome.err == f"12 images, 12 excluded, see {tmp_path / 'chosen' / 'rejects.csv'}\n"
    again = cxr("select", tiny.origin, "--one-per", "patient_id", "-o", tmp_path / "chosen")
    assert again.err == f"{tmp_path / 'chosen'}: up to date, nothing to do\n"
