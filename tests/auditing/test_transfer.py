"""What holds on external images."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import recall_score, roc_auc_score

from cxrtool.auditing import transfer
from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.auditing.transfer import external, left_out

FEW = {"resamples": 200}

TOP, LUNG = (np.arange(3), np.arange(64)), (np.arange(24, 36), np.arange(14, 22))


def signed(pictures, where, grey=0.15, of="covid"):
    thumbs = pictures.thumbs.copy()
    thumbs[np.ix_([i for i, label in enumerate(pictures.labels) if label == of], *where)] += grey
    return replace(pictures, thumbs=thumbs.clip(0, 1))


def external_set(pictures):
    """The same kind of pictures of other patients."""
    return replace(pictures, rows=tuple({**row, "patient_id": f"x{row['patient_id']}"} for row in pictures.rows))


def by_probe(part):
    return {(e["seen"], e["trained_on"]): e for e in part.content["answers"]}


def test_what_is_the_same_in_both_holds_and_what_is_not_falls_to_chance(make_pictures):
    here = signed(signed(make_pictures(seed=1), LUNG, 0.05), TOP, 0.03)
    there = signed(external_set(make_pictures(seed=2)), LUNG, 0.05)
    part = external(here, there, names=("one", "other"), **FEW)
    found = by_probe(part)
    assert set(found) == {(seen, name) for seen in ("thumbnail", "border", "lungs-only") for name in ("one", "other")}
    lungs = found["lungs-only", "one"]
    assert lungs["inside"]["auc"]["value"] > 0.9
    assert lungs["outside"]["auc"]["value"] > 0.9
    border = found["border", "one"]
    assert border["inside"]["auc"]["low"] > 0.7
    assert border["outside"]["auc"]["low"] <= 0.5
    texts = {finding.level: finding.text for finding in part.findings if "the border alone" in finding.text.lower()}
    assert WARNING in texts
    assert "learnt what is specific to one, not the disease" in texts[WARNING]
    assert any(finding.level == CLEAR and "lungs alone" in finding.text for finding in part.findings)
    json.dumps(part.as_json(), allow_nan=False)
    assert len(part.sheets[0].rows) == 12


def test_a_sign_that_is_reversed_is_worse_than_guessing(make_pictures):
    here = signed(make_pictures(seed=1), TOP, 0.04)
    there = signed(external_set(make_pictures(seed=2)), TOP, 0.04, of="normal")
    part = external(here, there, **FEW)
    assert by_probe(part)["border", "here"]["outside"]["auc"]["high"] < 0.5
    assert sum("worse than guessing" in finding.text for finding in part.findings) >= 2


def test_figures_are_those_of_the_answers(make_pictures, monkeypatch):
    said = {}
    original = transfer._external_scores

    def listening(probe, home, away, features, classes, seed):
        scores = original(probe, home, away, features, classes, seed)
        said[len(said)] = scores
        return scores

    monkeypatch.setattr(transfer, "_external_scores", listening)
    here, there = make_pictures(80, seed=1), external_set(make_pictures(100, seed=2))
    part = external(signed(here, TOP, 0.02), signed(there, TOP, 0.02), **FEW)
    first, scores = part.content["answers"][0]["outside"], said[0]
    assert first["images"] == 100
    assert first["auc"]["value"] == pytest.approx(roc_auc_score(scores.truth, scores.probabilities[:, 1]))
    for k, name in enumerate(part.content["classes"]):
        own = recall_score(scores.truth == k, scores.predicted == k)
        assert first["sensitivity"][name]["value"] == pytest.approx(own)


def test_who_is_in_both_is_left_out_of_the_other(make_pictures):
    here = make_pictures(60, seed=1)
    there = external_set(make_pictures(60, seed=2))
    rows = [dict(row) for row in there.rows]
    for row in rows[:6]:
        row["patient_id"] = row["patient_id"].removeprefix("x").upper()
    part = external(here, replace(there, rows=tuple(rows)), names=("one", "other"), **FEW)
    assert part.content["notes"] == ["6 images of other (or their patients) are also in one: excluded."]
    assert part.content["answers"][0]["outside"]["images"] == 54


def test_two_labels_in_common_are_needed(make_pictures):
    part = external(make_pictures(), external_set(make_pictures(classes=("covid", "lesion"))), **FEW)
    assert [finding.level for finding in part.findings] == [UNKNOWN]
    assert "two labels with 5 patients in both sets, found covid 30, normal 30" in part.findings[0].text


def test_each_source_is_left_out(make_pictures):
    pictures = make_pictures(160)
    thumbs = pictures.thumbs.copy()
    for i, row in enumerate(pictures.rows):
        # In source a covid is lighter on top; in source b it is lighter below.
        if row["label"] == "covid":
            thumbs[i, slice(0, 4) if row["source"] == "a" else slice(60, 64)] += 0.15
    part = left_out(replace(pictures, thumbs=thumbs.clip(0, 1)), **FEW)
    for entry in part.content["sources"]:
        assert entry["classes"] == ["covid", "normal"]
        assert entry["trained_with_it"]["auc"]["value"] > 0.9
        assert entry["trained_without_it"]["auc"]["value"] < 0.7
    assert {finding.level for finding in part.findings} <= {WARNING, NOTE}
    json.dumps(part.as_json(), allow_nan=False)


def test_a_source_of_one_label_cannot_be_left_out(make_pictures):
    pictures = make_pictures()
    rows = tuple({**row, "source": "a" if row["label"] == "covid" else "b"} for row in pictures.rows)
    part = left_out(replace(pictures, rows=rows), **FEW)
    assert [finding.level for finding in part.findings] == [UNKNOWN]
    assert "a has images of one label only, covid" in part.findings[0].text
    part = left_out(replace(pictures, rows=tuple({**row, "source": "a"} for row in rows)), **FEW)
    assert "all images come from one source, a" in part.findings[0].text


def test_a_patient_of_two_sources_trains_for_neither(make_pictures, monkeypatch):
    pictures = make_pictures(120)
    rows = [dict(row) for row in pictures.rows]
    rows[0]["source"], rows[1]["source"] = "a", "b"
    seen = []
    original = transfer.sampled

    def listening(repeat, fold, train, test, patients, seed):
        run = original(repeat, fold, train, test, patients, seed)
        seen.append((set(patients[run.train].tolist()), set(patients[run.test].tolist())))
        return run

    monkeypatch.setattr(transfer, "sampled", listening)
    left_out(replace(pictures, rows=tuple(rows)), **FEW)
    assert len(seen) == 2
    assert not any(train & test for train, test in seen)


@pytest.mark.parametrize("copies", [0, 20])
def test_copies_under_other_names_are_no_external_test(make_pictures, copies):
    rng = np.random.default_rng(0)

    def hashed(pictures, given=()):
        fresh = [rng.bytes(32).hex() for _ in pictures.rows]
        rows = tuple(
            {**row, "dhash": name, "sha256": rng.bytes(32).hex()}
            for row, name in zip(pictures.rows, [*given, *fresh], strict=False)
        )
        return replace(pictures, rows=rows)

    here = hashed(make_pictures(60, seed=1))
    there = hashed(external_set(make_pictures(60, seed=2)), [row["dhash"] for row in here.rows[:copies]])
    found = [
        one for one in external(here, there, names=("one", "other"), **FEW).findings if "look the same" in one.text
    ]
    assert len(found) == bool(copies)
    if copies:
        assert found[0].level == WARNING
        assert found[0].text.startswith("20 images of 60 in other look the same as images in one")


def test_what_was_left_out_is_said_where_too_little_remains(make_pictures):
    here = make_pictures(60, seed=1)
    part = external(here, here, names=("one", "other"), **FEW)
    assert part.findings[0].level == UNKNOWN
    assert part.findings[0].text.endswith("60 images of other (or their patients) are also in one: excluded.")
