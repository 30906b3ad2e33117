from typing import get_type_hints

import pytest

from cxrtool.commands.train.combinations import MOST, Combination, draw, parse_grid, with_kernels
from cxrtool.commands.train.options import TrainOptions
from cxrtool.errors import UsageError
from cxrtool.options import declared
from cxrtool.training.options import TrainingOptions

VARIED = {name for name, (_, told) in declared(TrainingOptions).items() if told.effect}
KINDS = {name: kind for name, kind in get_type_hints(TrainOptions).items() if name in VARIED}


def test_every_option_of_train_that_bears_on_the_result_can_be_varied():
    assert set(KINDS) == VARIED


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["model=resnet18,vgg16"], {"model": ["resnet18", "vgg16"]}),
        (["--batch-size=8, 16"], {"batch_size": [8, 16]}),
        (["lr=1e-3,0.1", "opt=sgd"], {"lr": [0.001, 0.1], "opt": ["sgd"]}),
        (["freeze=yes,no"], {"freeze": [True, False]}),
        (["lr=0.1", "lr=0.2,0.1"], {"lr": [0.1, 0.2]}),
        (["augment=rotate=10,flip=0.5"], {"augment": ["rotate=10,flip=0.5"]}),
        (["augment=none|rotate=10,flip=0.5"], {"augment": ["none", "rotate=10,flip=0.5"]}),
        (["augment=none", "augment=rotate=10,flip=0.5"], {"augment": ["none", "rotate=10,flip=0.5"]}),
        (["weights=a,b.pth|none"], {"weights": ["a,b.pth", "none"]}),
        (["kernels=5,5,3|uniform"], {"kernels": ["5,5,3", "uniform"]}),
    ],
)
def test_values_are_read_as_the_flag_reads_them(texts, expected):
    assert parse_grid(texts, KINDS) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--grid lr: expected KEY=VALUE,VALUE"),
        ("lr=", "expected values after '='"),
        ("lr=fast", "--grid lr: expected a number, found 'fast'"),
        ("batch-size=8.5", "--grid batch-size: expected a whole number, found '8.5'"),
        ("freeze=perhaps", "--grid freeze: expected yes or no, found 'perhaps'"),
        ("batchsize=8", "found 'batchsize'; did you mean 'batch-size'"),
        ("splits=a.csv,b.csv", "--grid: expected an option of train as key, found 'splits'"),
        ("seed=1,2", "found 'seed'"),
    ],
)
def test_what_is_wrong_is_told(text, message):
    with pytest.raises(UsageError, match=message):
        parse_grid([text], KINDS)


GRID = {"lr": [1.0, 2.0, 3.0], "opt": ["sgd", "adam"]}
ALL = [{"lr": lr, "opt": opt} for lr in (1.0, 2.0, 3.0) for opt in ("sgd", "adam")]


def test_all_combinations_in_the_grid_s_order_and_the_options_own_first():
    assert draw(GRID, None, 0, {}) == ALL
    assert draw(GRID, None, 0, {"lr": 9.0, "opt": "sgd"}) == ALL
    own = {"lr": 2.0, "opt": "adam", "epochs": 3}
    assert draw(GRID, None, 0, own) == [ALL[3], *ALL[:3], *ALL[4:]]
    assert draw(GRID, 99, 0, own) == draw(GRID, None, 0, own)


def test_a_budget_draws_without_repetition_and_repeats_with_the_seed():
    grid = {"lr": [float(i) for i in range(1000)], "batch_size": list(range(1000))}
    drawn = draw(grid, 50, 7, {})
    assert len({tuple(found.items()) for found in drawn}) == 50
    assert drawn == draw(grid, 50, 7, {})
    assert drawn != draw(grid, 50, 8, {})
    assert drawn == sorted(drawn, key=lambda found: (found["lr"], found["batch_size"]))


def test_the_options_own_combination_is_in_every_budget():
    own = {"lr": 3.0, "opt": "adam"}
    for seed in range(20):
        assert draw(GRID, 1, seed, own) == [own]
        drawn = draw(GRID, 3, seed, own)
        assert drawn[0] == own
        assert len({tuple(found.items()) for found in drawn}) == 3


def test_every_combination_is_drawn_alike():
    counts = dict.fromkeys(range(6), 0)
    for seed in range(600):
        for found in draw(GRID, 2, seed, {}):
            counts[ALL.index(found)] += 1
    # 200 each are expected, with a standard deviation of 12.
    assert min(counts.values()) > 140
    assert max(counts.values()) < 260


def test_more_than_one_can_mean_is_refused_unless_some_are_drawn():
    grid = {"lr": [float(i) for i in range(MOST + 1)]}
    with pytest.raises(UsageError, match="at most 10,000 combinations, found 10,001"):
        draw(grid, None, 0, {})
    assert len(draw(grid, 3, 0, {})) == 3


def test_a_combination_is_named_as_one_types_it():
    assert (
        Combination(TrainingOptions(), {"batch_size": 8, "lr": 0.001, "freeze": True}).name
        == "batch-size=8 lr=0.001 freeze=yes"
    )


def test_a_family_of_networks_is_drawn_from_without_being_written_down():
    grid = with_kernels(parse_grid(["kernels=all", "lr=0.1,1"], KINDS), None)
    with pytest.raises(UsageError, match="found 195,310"):
        draw(grid, None, 0, {})
    own = {"kernels": "5,5,5,3,3", "lr": 1.0}
    drawn = draw(grid, 6, 3, own)
    assert drawn[0] == own
    assert len({tuple(found.items()) for found in drawn}) == 6
    assert drawn == draw(grid, 6, 3, own)
    # A gigapixel of layers: a list of them would not fit into memory.
    assert len(draw(with_kernels({"kernels": ["all"]}, 8192), 4, 0, {})) == 4


def test_a_family_fits_the_smallest_picture_that_is_tried():
    assert len(with_kernels({"kernels": ["uniform"]}, None)["kernels"]) == 35
    assert len(with_kernels({"kernels": ["uniform"]}, 64)["kernels"]) == 30
    assert len(with_kernels({"kernels": ["uniform"], "size": [256, 32]}, 64)["kernels"]) == 25
    assert with_kernels({"lr": [1.0]}, 64) == {"lr": [1.0]}
