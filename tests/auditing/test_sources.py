"""Telling the source within one label."""

import json
from dataclasses import replace

import numpy as np

from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING
from cxrtool.auditing.sources import examine

FEW = {"permutations": 100, "resamples": 200}


def shaded(pictures, where):
    """Source b is lighter in a part of the picture."""
    thumbs = pictures.thumbs.copy()
    thumbs[[i for i, name in enumerate(pictures.sources) if name == "b"], where] += 0.1
    return replace(pictures, thumbs=thumbs.clip(0, 1))


def test_a_source_is_told_by_what_is_left_of_it(make_pictures):
    pictures = shaded(make_pictures(), slice(0, 4))
    cropped = pictures.thumbs.copy()
    cropped[:, :8] = 0
    part = examine({"prepared": pictures, "cropped": replace(pictures, thumbs=cropped)}, **FEW)
    told = {(e["stage"], e["label"], e["seen"]): e["told"] for e in part.content["answers"]}
    assert {key for key, value in told.items() if value} == {
        ("prepared", "covid", "whole image"),
        ("prepared", "normal", "whole image"),
    }
    assert len(told) == 8
    # Each label has as many images of either source.
    (noted,) = (finding.text for finding in part.findings if finding.level == NOTE)
    assert "whole image (prepared)" in noted
    assert "the label is not associated with the source" in noted
    assert [finding.level for finding in part.findings].count(CLEAR) == 3
    entry = part.content["answers"][0]
    assert entry["patients"] == {"a": 15, "b": 15}
    assert entry["balanced_accuracy"]["value"] > 0.9
    json.dumps(part.as_json(), allow_nan=False)


def test_a_source_that_goes_with_the_label_is_a_warning(make_pictures):
    pictures = make_pictures(160)
    seen = {"covid": 0, "normal": 0}
    rows = []
    for row in pictures.rows:
        seen[row["label"]] += 1
        # A quarter of covid and three quarters of normal are of b.
        of_b = seen[row["label"]] % 4 == 0 if row["label"] == "covid" else seen[row["label"]] % 4 != 0
        rows.append({**row, "source": "b" if of_b else "a"})
    pictures = shaded(replace(pictures, rows=tuple(rows), lungs=None), slice(0, 4))
    part = examine({"prepared": pictures}, **FEW)
    assert part.content["source_goes_with_label"]
    assert [finding.level for finding in part.findings] == [WARNING]
    assert "Source and label are associated" in part.findings[0].text


def test_the_disease_itself_is_no_source(make_pictures):
    pictures = make_pictures()
    thumbs = pictures.thumbs.copy()
    thumbs[[i for i, name in enumerate(pictures.labels) if name == "covid"]] += 0.2
    part = examine({"prepared": replace(pictures, thumbs=thumbs, lungs=None)}, **FEW)
    assert [finding.level for finding in part.findings] == [CLEAR]


def test_one_source_a_label_cannot_be_asked(make_pictures):
    pictures = make_pictures()
    rows = tuple({**row, "source": "a" if row["label"] == "covid" else "b"} for row in pictures.rows)
    part = examine({"prepared": replace(pictures, rows=rows)}, **FEW)
    assert [finding.level for finding in part.findings] == [UNKNOWN]
    assert "all images of covid come from one source, a" in part.findings[0].text
    rows = tuple({**row, "source": ""} for row in pictures.rows)
    part = examine({"prepared": replace(pictures, rows=rows)}, **FEW)
    assert "no image of covid has a source" in part.findings[0].text


def test_a_source_of_few_patients_is_left_out(make_pictures):
    pictures = make_pictures()
    rows = [dict(row) for row in pictures.rows]
    for row in rows[:8]:
        row["source"] = "c"
    part = examine({"prepared": replace(pictures, rows=tuple(rows), lungs=None)}, **FEW)
    assert part.content["answers"][0]["sources"] == ["a", "b"]
    assert part.content["answers"][0]["without"] == ["c"]
    assert "with fewer than 10 patients of a label: c" in part.sheets[0].notes[-1]


def test_who_is_told_apart_is_patients_not_images(make_pictures):
    """The images of a patient are similar; if they were divided, each patient would reveal its source."""
    pictures = make_pictures(120, per_patient=4)
    thumbs = np.repeat(pictures.thumbs[::4], 4, axis=0) + pictures.thumbs * 0.01
    part = examine({"prepared": replace(pictures, thumbs=thumbs, lungs=None, rows=_few(pictures))}, **FEW)
    assert not any(entry.get("told") for entry in part.content["answers"])


def _few(pictures):
    """All of one label, so that there are patients enough."""
    return tuple({**row, "label": "normal"} for row in pictures.rows)
