import pytest

from cxrtool.commands.enhance.reference import References, divide
from cxrtool.data.splitting.splits import Splits
from cxrtool.errors import InputError
from cxrtool.flow.chain import ALL

SPLITS = Splits({("0", "0"): {"a": "train", "b": "test"}, ("0", "1"): {"a": "test", "b": "train", "x": "train"}})


def test_without_splits_there_is_one_fold_of_all():
    (fold,) = divide([{"image_id": "a"}, {"image_id": "b"}], None)
    assert (fold.name, list(fold.indices), list(fold.fitted)) == (ALL, [0, 1], [0, 1])


def test_a_reference_comes_from_training_images_alone_and_only_what_is_divided_is_used():
    first, second = divide([{"image_id": "a"}, {"image_id": "c"}, {"image_id": "b"}], SPLITS)
    assert (first.name, first.repeat, first.fold, first.indices, first.fitted) == ("r0f0", "0", "0", [0, 2], [0])
    assert (second.name, second.indices, second.fitted) == ("r0f1", [0, 2], [2])


def test_what_was_made_for_a_fold_belongs_to_it_alone():
    rows = [
        {"image_id": f"{name}_r0f{fold}", "parent_id": name, "repeat": "0", "fold": fold}
        for fold in "01"
        for name in "ab"
    ]
    first, second = divide(rows, SPLITS)
    assert (list(first.indices), list(first.fitted)) == ([0, 1], [0])
    assert (second.indices, second.fitted) == ([2, 3], [3])


def test_a_fold_without_training_images_is_named():
    with pytest.raises(InputError, match="fold r0f0 has no training image"):
        divide([{"image_id": "b"}], SPLITS)


def test_the_chain_tells_of_each_fold_where_there_are_folds():
    entries = [{"step": "match-histogram", "version": 1, "quantiles": text} for text in ("1 -255", "-255 1")]
    assert References(entries[:1], {ALL: 0}, {}, "", []).entry() == entries[0]
    told = References(entries, {"r0f0": 1, "r0f1": 0, "r0f2": 1}, {}, "", []).entry()
    assert told["folds"] == {"r0f0": "-255 1", "r0f1": "1 -255", "r0f2": "-255 1"}
    assert "quantiles" not in told
