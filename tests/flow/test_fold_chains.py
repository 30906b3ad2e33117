import json

import pytest

from cxrtool.data.tables.manifest import Manifest
from cxrtool.errors import InputError
from cxrtool.flow.fold_chains import ALL, chain_of_manifest, fold_together, is_divided, own_fold

SMALL = {"step": "prepare", "version": 2, "size": 24, "fit": "squash"}
CLAHE = {"step": "clahe", "version": 1, "clip": 2.0, "tiles": 8}


def match(quantiles):
    return {"step": "match-histogram", "version": 1, "quantiles": quantiles}


def test_what_all_folds_share_is_told_once_and_the_rest_of_each():
    chains = {"r0f0": [SMALL, match("-255 1"), CLAHE], "r0f1": [SMALL, match("1 -255"), CLAHE]}
    folds = {"step": "match-histogram", "version": 1, "folds": {"r0f0": "-255 1", "r0f1": "1 -255"}}
    assert fold_together(chains) == [SMALL, folds, CLAHE]
    assert fold_together({ALL: [SMALL]}) == [SMALL]
    assert fold_together({"r0f0": [CLAHE], "r0f1": [CLAHE]}) == [CLAHE]


@pytest.mark.parametrize(
    "chains",
    [
        {"r0f0": [SMALL], "r0f1": [SMALL, CLAHE]},
        {"r0f0": [], "r0f1": [CLAHE]},
        {"r0f0": [CLAHE], "r0f1": [{**CLAHE, "clip": 3.0}]},
        {"r0f0": [match("a")], "r0f1": [{**match("b"), "version": 2}]},
        {ALL: [match("a")], "r0f1": [match("b")]},
    ],
)
def test_other_differences_are_refused(chains):
    with pytest.raises(InputError, match="expected images of one preprocessing"):
        fold_together(chains)


def test_the_chain_of_a_manifest_is_read_from_the_folders_of_its_folds(tmp_path):
    folds = {"r0f0": "-255 1", "r1f2": "1 -255"}
    told = [SMALL, {"step": "match-histogram", "version": 1, "folds": folds}, CLAHE]
    (tmp_path / "run.json").write_text(json.dumps({"command": "enhance", "chain": told}))
    rows = [
        {"image_id": name, "path": str(tmp_path / "images" / name / "a.png"), "repeat": name[1], "fold": name[3]}
        for name in folds
    ]
    manifest = Manifest(list(rows[0]), rows)
    assert chain_of_manifest(manifest) == told
    assert is_divided(manifest)
    assert [own_fold(row) for row in rows] == list(folds)
    assert not is_divided(Manifest(["image_id"], [{"image_id": "a", "repeat": ""}]))
