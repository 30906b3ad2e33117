import numpy as np
import pytest

from cxrtool.data.tables.foreign import ForeignColumns, as_runs, as_table, is_own, notes_of, read_foreign
from cxrtool.data.tables.manifest import read_table
from cxrtool.data.tables.predictions import DECISIONS, PROBABILITIES, RANKING, join
from cxrtool.errors import InputError


@pytest.fixture
def read(tmp_path):
    def reader(text, name="t.csv", **columns):
        (tmp_path / name).write_text(text, encoding="utf-8")
        return read_foreign(read_table(tmp_path / name), ForeignColumns(**columns))

    return reader


@pytest.mark.parametrize("identity", ["filename", "image", "image_id", "file", "path", "name"])
@pytest.mark.parametrize("label", ["y_true", "target", "label", "truth", "gt", "class"])
@pytest.mark.parametrize("score", ["y_score", "score", "prob", "probability", "pred_prob", "logits"])
def test_common_names_are_recognised(read, identity, label, score):
    found = read(f"{identity},{label},{score}\nd/a.png,covid,0.9\nd/b.png,normal,0.2\n", positive="covid")
    assert (found.kind, found.classes) == (PROBABILITIES, ["normal", "covid"])
    assert [(row["image_id"], row["label"]) for row in found.rows] == [("a", "covid"), ("b", "normal")]
    assert found.probabilities[:, 1].tolist() == [0.9, 0.2]
    words = f"Columns: image = {identity}; label = {label}; score of covid = {score}; taken as probability."
    assert found.notes == [words]


@pytest.mark.parametrize("form", ["prob_{}", "{}_prob", "score_{}", "{}_score", "p_{}", "{}", "prob {}", "y_prob_{}"])
def test_a_column_for_each_class(read, form):
    header = ",".join(["file", "label", *(form.format(name) for name in ("Covid", "normal", "pneumonia"))])
    found = read(f"{header}\na,covid,0.7,0.2,0.1\nb,normal,0.1,0.8,0.1\nc,pneumonia,0,0,1\n")
    assert found.kind == PROBABILITIES
    assert found.classes == ["covid", "normal", "pneumonia"]
    assert found.probabilities.sum(axis=1) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize(
    ("labels", "positive", "classes", "truth"),
    [
        ("0 1", None, ["0", "1"], ["0", "1"]),
        ("0.0 1.0", "1", ["0", "1"], ["0", "1"]),
        ("0 1", "covid", ["not covid", "covid"], ["not covid", "covid"]),
        ("0 1", "0", ["1", "0"], ["0", "1"]),
        ("False True", None, ["False", "True"], ["False", "True"]),
        ("no yes", None, ["no", "yes"], ["no", "yes"]),
        ("normal covid", "COVID", ["normal", "covid"], ["normal", "covid"]),
    ],
)
def test_the_class_of_a_single_score(read, labels, positive, classes, truth):
    first, second = labels.split()
    found = read(f"file,label,score\na,{first},0.1\nb,{second},0.7\n", positive=positive)
    assert found.classes == classes
    assert [row["label"] for row in found.rows] == truth
    assert found.probabilities[:, 1].tolist() == [0.1, 0.7]


def test_one_class_against_all_others(read):
    text = "file,label,score\na,covid,0.9\nb,normal,0.2\nc,pneumonia,0.3\n"
    found = read(text, positive="covid")
    assert found.classes == ["not covid", "covid"]
    assert [row["label"] for row in found.rows] == ["covid", "not covid", "not covid"]
    assert found.rows[2]["label_of_table"] == "pneumonia"
    assert "'not covid' is normal, pneumonia." in found.notes[0]
    with pytest.raises(InputError, match="expected the class that score is the score of") as caught:
        read(text)
    assert "--positive covid or --positive normal" in caught.value.hint
    with pytest.raises(InputError, match="did you mean 'pneumonia'"):
        read(text, positive="pneumona")


def test_a_score_with_the_name_of_a_class_needs_no_option(read):
    found = read("file,label,prob_covid\na,covid,0.9\nb,normal,0.2\n")
    assert found.classes == ["normal", "covid"]


def test_scores_that_are_no_probabilities_only_rank(read):
    found = read("file,label,score\na,1,-3\nb,0,2.5\nc,1,2.5\nd,0,70\n")
    assert found.kind == RANKING
    ranks = found.probabilities[:, 1]
    assert ranks[0] < ranks[1] == ranks[2] < ranks[3]
    assert "no probabilities (from -3 to 70): for ROC and AUC only, no calibration, no accuracy" in found.notes[0]
    # Independent scores of several classes.
    found = read("file,label,score_a,score_b\na,a,0.9,0.8\nb,b,0.1,0.7\n")
    assert found.kind == RANKING
    assert "their sum is 0.8 to 1.7" in found.notes[0]


def test_logits_of_several_classes_become_probabilities(read):
    found = read("file,label,logit_a,logit_b\na,a,2,-1\nb,b,-700,700\n")
    assert found.kind == PROBABILITIES
    assert np.allclose(found.probabilities, [[1 / (1 + np.exp(-3)), 1 / (1 + np.exp(3))], [0, 1]])
    assert "softmax" in found.notes[0]
    assert read("file,label,score_a,score_b\na,a,2,-1\nb,b,-7,7\n").kind == RANKING


def test_predicted_classes_alone_and_beside_scores(read):
    found = read("file,label,y_pred\na,covid,Covid\nb,normal,covid\n")
    assert (found.kind, [row["predicted"] for row in found.rows]) == (DECISIONS, ["covid", "covid"])
    assert "no scores, so no AUC and no calibration" in found.notes[0]
    found = read("file,label,y_pred,score\na,1,1.0,7\nb,0,1.0,-2\n", positive="covid")
    assert (found.kind, [row["predicted"] for row in found.rows]) == (RANKING, ["covid", "covid"])
    assert "no accuracy" not in found.notes[0]
    # Keras users call the score y_pred.
    assert read("y_true,y_pred\n1,0.7\n0,0.1\n").kind == PROBABILITIES
    with pytest.raises(InputError, match="line 3: expected a class among covid, normal in y_pred, found 'tb'"):
        read("file,label,y_pred,prob_covid,prob_normal\na,covid,covid,1,0\nb,normal,tb,0,1\n")


def test_named_columns_and_decimal_commas(read):
    text = "Bild;Befund;Wert;Alter\na;x;0,25;40\nb;y;1;50\n"
    found = read(text, id="bild", label="Befund", score="Wert", positive="y")
    assert found.probabilities[:, 1].tolist() == [0.25, 1]
    assert found.rows[0]["Alter"] == "40"
    with pytest.raises(InputError, match=r"--score-column Wrt: expected this column.*did you mean 'Wert'"):
        read(text, label="Befund", score="Wrt")
    with pytest.raises(InputError, match="expected a column of true classes"):
        read(text)
    found = read("file,label,eins,zwei\na,eins,0.3,0.7\nb,zwei,0.4,0.6\n", score="eins,zwei")
    assert found.classes == ["eins", "zwei"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("file,label,y_true,score\na,1,0,0.5\nb,0,1,0.1\n", "one column for the label, found y_true and label"),
        ("file,label,score,prob\na,1,3,0.5\nb,0,1,0.1\n", "one column for the score, found score and prob"),
        ("file,label\na,1\nb,0\n", "found: file, label"),
        ("file,label,score\na,1,x\n", "line 2: expected a number as score in score, found 'x'"),
        ("file,label,score\na,1,0.4\nb,0,\n", "line 3: expected a number as score"),
        ("file,label,score\na,1,inf\n", "line 2: expected a number as score"),
        ("file,label,prob_a,prob_b\na,0,0.4,0.6\nb,1,0.1,0.9\n", "expected a score column for each label"),
        ("file,label,score\n,1,0.4\nb,0,0.1\n", "the cell 'file' is empty"),
        ("file,label,score\n", "found no rows"),
        ("file,label,score\na,,0.5\n", "found no cell in label"),
    ],
)
def test_what_cannot_be_decided_is_refused(read, text, words):
    with pytest.raises(InputError, match=words):
        read(text)


def test_the_refusal_of_classes_has_the_line_that_works(read):
    text = "file,label,prob_a,prob_b\na,0,0.4,0.6\nb,1,0.1,0.9\n"
    with pytest.raises(InputError) as caught:
        read(text)
    assert "--score-column prob_b --positive 1" in caught.value.hint
    assert read(text, score="prob_b", positive="1").probabilities[:, 1].tolist() == [0.6, 0.9]


def test_ids_patients_and_files(read, tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    found = read("filename,Patient,Age,label,score\na.png,7,40,1,0.5\nx\\b.png,8,50,0,0.1\n")
    assert [row["image_id"] for row in found.rows] == ["a", "b"]
    assert [row["path"] for row in found.rows] == [str(tmp_path / "a.png"), ""]
    assert [(row["patient_id"], row["age"]) for row in found.rows] == [("7", "40"), ("8", "50")]
    found = read("filename,label,score\nx/a.png,1,0.5\ny/a.png,0,0.1\n")
    assert [row["image_id"] for row in found.rows] == ["x/a.png", "y/a.png"]
    found = read("label,score\n1,0.5\n0,0.1\n")
    assert [row["image_id"] for row in found.rows] == ["row1", "row2"]


def test_several_files_are_runs(read):
    one, two = (read(f"file,label,score\na,1,{score}\nb,0,-1\n", f"{score}.csv") for score in (3, 4))
    assert as_runs([one, two]) == ["The 2 files are 2 runs (repeats), because they have the same images."]
    assert join([one, two], "both").runs() == [("0", "0"), ("1", "0")]
    assert join([one, two], "both").kind == RANKING
    assert len(notes_of([one, two])) == 1
    one, two = (read(f"file,label,score\n{name}1,1,0.5\n{name}2,0,0.1\n", f"{name}.csv") for name in "ab")
    assert "2 folds" in as_runs([one, two])[0]
    assert join([one, two], "both").runs() == [("0", "0"), ("0", "1")]
    ranked = read("file,label,score\na,1,5\nb,0,-1\n")
    with pytest.raises(InputError, match=r"expected probabilities as in .*a.csv, found scores that are no prob"):
        join([one, ranked], "both")


@pytest.mark.parametrize(
    "text",
    [
        "file,label,score\na,1,-3\nb,0,2.5\nc,1,2.5\n",
        "file,label,score\na,1,3\nb,0,2.5\nc,2,7\n",
        "file,label,covid_score,other_score\na,covid,-3,2\nb,other,2.5,8\n",
        "file,label,y_pred\na,1,1\nb,0,1\n",
        "file,label,score\na,1,0.1\nb,0,0.2\n",
    ],
)
def test_it_is_written_and_read_back_as_the_same(read, tmp_path, text):
    found = read(text, positive="1")
    (tmp_path / "again.csv").write_text(as_table(found))
    table = read_table(tmp_path / "again.csv")
    again = read_foreign(table, ForeignColumns(positive="1"))
    assert is_own(table) == (found.kind == PROBABILITIES)
    assert (again.kind, again.classes) == (found.kind, found.classes)
    assert np.array_equal(again.probabilities.argsort(axis=0), found.probabilities.argsort(axis=0))
    for name in ("image_id", "label"):
        assert [row[name] for row in again.rows] == [row[name] for row in found.rows]


def test_labels_that_differ_in_case_alone_stay_apart(read):
    found = read("file,label,y_pred\na,covid,covid\nb,COVID,COVID\nc,normal,NORMAL\n")
    assert [row["predicted"] for row in found.rows] == ["covid", "COVID", "normal"]
    with pytest.raises(InputError, match="expected a class among COVID, covid in y_pred, found 'Covid'"):
        read("file,label,y_pred\na,covid,Covid\nb,COVID,COVID\n")
    assert read("file,label,y_score\na,covid,.9\nb,COVID,.8\n", positive="covid").classes[1] == "covid"
