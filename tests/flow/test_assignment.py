from dataclasses import replace

import pytest

from cxrtool.data.splitting.grouping import hashed
from cxrtool.data.tables.manifest import Manifest, read_manifest, read_table, write_table
from cxrtool.data.tables.twins import twin_rows
from cxrtool.errors import InputError, LeakageError
from cxrtool.flow.assignment import Assignment, Seen, known_as, read_assignments

COLUMNS = ["image_id", "repeat", "fold", "subset"]


@pytest.fixture
def manifest(study):
    return read_manifest(study.folder)


def rewrite(study, change):
    """Write the splits anew, with rows changed, dropped (None) or multiplied (a list)."""
    rows = []
    for row in read_table(study.splits).rows:
        found = change(dict(row))
        rows += found if isinstance(found, list) else [found] if found else []
    write_table(study.splits, COLUMNS, rows)


def test_places_are_those_of_the_manifest_in_its_order(study, manifest, settings, shuffled):
    assignments = read_assignments(study.splits, manifest, settings)
    assert [a.name for a in assignments] == ["r0f0", "r0f1", "r0f2", "r1f0", "r1f1", "r1f2"]
    ids = manifest.column("image_id")
    for assignment in assignments:
        for subset, places in assignment.subsets.items():
            assert places == sorted(places)
            found = study.assigned(int(assignment.repeat), int(assignment.fold), subset)
            assert [ids[i] for i in places] == sorted(found)
    write_table(study.splits, COLUMNS, shuffled(read_table(study.splits).rows))
    assert read_assignments(study.splits, manifest, settings) == assignments


def test_the_ids_are_gathered_once_and_not_for_every_row(study, manifest, settings, monkeypatch):
    """Otherwise a hundred thousand images take more than twelve minutes before the first is read."""
    gathered = []

    def gathering(row, placed):
        if not any(placed is one for one in gathered):
            gathered.append(placed)
        return known_as(row, placed)

    monkeypatch.setattr("cxrtool.flow.assignment.known_as", gathering)
    folds = read_assignments(study.splits, manifest, settings)
    assert len(gathered) <= 2 + len(folds) < len(manifest)


def test_ids_that_the_manifest_lacks_are_counted_and_left_out(study, manifest, settings, listener):
    fewer = Manifest(manifest.columns, manifest.rows[:-1], manifest.origin)
    assignments = read_assignments(study.splits, fewer, settings)
    assert all(23 not in places for a in assignments for places in a.subsets.values())
    assert listener.said == [f"{study.splits}: 1 of its 24 images are not in {manifest.name}; excluded"]


def test_images_without_a_label_are_counted_and_left_out(study, manifest, settings, listener):
    for index in (0, 1):
        manifest.rows[index]["label"] = ""
    assignments = read_assignments(study.splits, manifest, settings)
    assert all(not {0, 1} & set(places) for a in assignments for places in a.subsets.values())
    assert listener.warned == [f"{study.splits}: 2 of its images have no label; excluded"]


def test_images_that_the_splits_lack_are_in_no_subset(study, manifest, settings, listener):
    rewrite(study, lambda row: None if row["image_id"] == "im005" else row)
    assignments = read_assignments(study.splits, manifest, settings)
    assert all(5 not in places for a in assignments for places in a.subsets.values())
    assert listener.said == [f"{study.splits}: 1 image of the manifest, such as im005, not in any fold; excluded"]
    assert listener.warned == []


def test_a_class_without_a_training_image_is_told_with_its_fold(study, manifest, settings):
    def move(row):
        trained = row["repeat"] == "1" and row["fold"] == "2" and row["subset"] == "train"
        return {**row, "subset": "test"} if trained and int(row["image_id"][2:]) % 4 >= 2 else row

    rewrite(study, move)
    with pytest.raises(InputError, match="fold r1f2 has no training image of class 'normal'") as caught:
        read_assignments(study.splits, manifest, settings)
    assert "cxrtool split" in caught.value.hint


@pytest.mark.parametrize("labels", [[""], ["covid"], ["covid", ""]])
def test_fewer_than_two_classes_are_told(study, manifest, settings, labels):
    for index, row in enumerate(manifest.rows):
        row["label"] = labels[index % len(labels)]
    with pytest.raises(InputError, match="expected at least two classes in the column 'label'"):
        read_assignments(study.splits, manifest, settings)


def test_a_manifest_without_labels_is_told(study, manifest, settings):
    manifest.columns.remove("label")
    with pytest.raises(InputError, match="expected a column 'label'"):
        read_assignments(study.splits, manifest, settings)


def leak_by_patient(study, manifest):
    # One of the two images of a patient changes sides, in one fold only.
    first = study.assigned(0, 1, "train")[0]

    def move(row):
        here = (row["repeat"], row["fold"], row["image_id"]) == ("0", "1", first)
        return {**row, "subset": "test"} if here else row

    rewrite(study, move)
    return "fold r0f1: 1 patient"


def leak_by_spelling(study, manifest):
    test, train = study.assigned(0, 0, "test")[0], study.assigned(0, 0, "train")[0]
    named = {row["image_id"]: row for row in manifest.rows}
    named[test]["patient_id"], named[train]["patient_id"] = "Clinic:7", " clinic:7"
    return "fold r0f0: "


def leak_by_pixels(study, manifest):
    for row in manifest.rows:
        row["sha256"] = row["image_id"]
    named = {row["image_id"]: row for row in manifest.rows}
    named[study.assigned(0, 0, "validation")[0]]["sha256"] = "same"
    named[study.assigned(0, 0, "train")[0]]["sha256"] = "same"
    return "fold r0f0: 1 patient or duplicate image is"


def leak_by_derivation(study, manifest):
    for row in manifest.rows:
        row["parent_id"] = ""
    manifest.rows[0]["parent_id"] = study.assigned(0, 0, "train")[0]
    return "fold r0f0: "


@pytest.mark.parametrize("leak", [leak_by_patient, leak_by_spelling, leak_by_pixels, leak_by_derivation])
def test_a_leak_is_refused_unless_it_is_allowed(study, manifest, settings, listener, leak):
    expected = leak(study, manifest)
    with pytest.raises(LeakageError, match=expected) as caught:
        read_assignments(study.splits, manifest, settings)
    assert caught.value.exit_code == 4
    assert "--allow-leakage" in caught.value.hint
    assert len(read_assignments(study.splits, manifest, replace(settings, allow_leakage=True))) == 6
    assert any(text.startswith(expected) for text in listener.warned)


def test_an_unlabelled_image_can_leak_too(study, manifest, settings):
    # It is not trained on, but its patient's others are, and who asks about it gets no honest answer.
    leak_by_patient(study, manifest)
    manifest.rows[0]["label"] = ""
    with pytest.raises(LeakageError):
        read_assignments(study.splits, manifest, settings)


def divided(manifest, names):
    """The rows of a manifest once for each fold of the names, as a step writes them that is fitted in each fold."""
    rows = [
        {**row, "image_id": f"{row['image_id']}_r{r}f{f}", "parent_id": row["image_id"], "repeat": r, "fold": f}
        for r, f in names
        for row in manifest.rows
    ]
    return Manifest([*manifest.columns, "parent_id", "repeat", "fold"], rows)


def test_what_was_made_for_a_fold_is_used_in_it_alone_where_the_splits_put_its_original(
    study, manifest, settings, listener
):
    whole = read_assignments(study.splits, manifest, settings)
    images = divided(manifest, [(a.repeat, a.fold) for a in whole])
    for number, (plain, other) in enumerate(zip(whole, read_assignments(study.splits, images, settings), strict=True)):
        assert other.name == plain.name
        for subset, places in plain.subsets.items():
            assert other.subsets[subset] == [number * len(manifest) + place for place in places]
    assert listener.said == listener.warned == []


def test_a_radiograph_and_what_was_made_of_it_are_not_both_used(study, manifest, settings):
    images = divided(manifest, [("0", "0")])
    both = Manifest(images.columns, [{"parent_id": "", "repeat": "", "fold": "", **row} for row in manifest.rows])
    both.rows += images.rows
    with pytest.raises(InputError, match=r"and 'im0.._r0f0' are the same radiograph, and both are in fold r0f0"):
        read_assignments(study.splits, both, settings)


def test_a_patient_on_two_sides_is_found_among_what_was_made_for_folds(study, manifest, settings):
    images = divided(manifest, [(r, f) for r in "01" for f in "012"])
    images.rows[0]["patient_id"] = images.rows[-1]["patient_id"] = "p:shared"
    read_assignments(study.splits, manifest, settings)
    with pytest.raises(LeakageError, match="patient or duplicate image is in more than one subset"):
        read_assignments(study.splits, images, settings)


def twins_of(manifest, generators=("covid", "normal"), fold="0"):
    """A manifest of twins of one fold."""
    rows = [twin for row in manifest.rows for twin in twin_rows(row, "0", fold, generators)]
    return Manifest([*manifest.columns, "parent_id", "generator", "repeat", "fold"], rows, manifest.origin)


def test_twins_stand_beside_each_other_and_folds_without_any_are_left_out(study, manifest, settings, listener):
    assignments = read_assignments(study.splits, twins_of(manifest), settings)
    assert [assignment.name for assignment in assignments] == ["r0f0"]
    tested = study.assigned(0, 0, "test")
    found = [twins_of(manifest).rows[i]["image_id"] for i in assignments[0].subsets["test"]]
    assert found == [f"{name}_r0f0_{generator}" for name in tested for generator in ("covid", "normal")]
    assert any("no images were made for 5 of 6 folds, such as r0f1" in text for text in listener.warned)


def test_twins_of_folds_that_the_splits_lack_are_refused(study, manifest, settings):
    with pytest.raises(InputError, match=r"made for other folds than the 6 of"):
        read_assignments(study.splits, twins_of(manifest, fold="9"), settings)


@pytest.mark.parametrize("generator", ["covid", ""])
def test_a_twin_twice_or_beside_its_radiograph_is_refused(study, manifest, settings, generator):
    twins = twins_of(manifest)
    twins.rows.append({**twins.rows[0], "image_id": "again", "generator": generator})
    with pytest.raises(InputError, match="'im000_r0f0_covid' and 'again' are the same radiograph"):
        read_assignments(study.splits, twins, settings)


def test_each_fold_has_a_seed_of_its_own_that_never_changes():
    first, second = Assignment("0", "1", {}), Assignment("1", "0", {})
    assert first.seed(0) == 70716612318264533
    assert len({one.seed(base) for one in (first, second) for base in (0, 1)}) == 4


@pytest.mark.parametrize("listed", ["Clinic: 7", "hash"])
def test_patients_are_known_by_their_hash_and_by_the_clear_ids_of_earlier_models(tmp_path, listed):
    patient = hashed("clinic: 7") if listed == "hash" else listed
    write_table(tmp_path / "fitted_on.csv", ["patient_id", "sha256"], [{"patient_id": patient, "sha256": ""}])
    seen = Seen.of([tmp_path])
    assert seen.by({"patient_id": "CLINIC: 7"}) == tmp_path.name
    assert seen.by({"patient_id": "clinic: 8"}) is None
    assert seen.by({"patient_id": ""}) is None
