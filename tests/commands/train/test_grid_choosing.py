import itertools
import random
from pathlib import Path

import pytest

from cxrtool.commands.train.grid import Candidate, choose, pareto_front


def candidate(index, accuracy, macs, loss=0.5, images=100, reason=""):
    score = {
        "validation_accuracy": accuracy,
        "validation_loss": loss,
        "parameters": 1000 - index,
        "macs": macs,
        "images": images,
        "reason": "",
    }
    return Candidate(index, Path(), {"reason": reason} if reason else score)


def test_accuracy_alone_decides_where_the_search_is_general():
    found = [candidate(0, 0.90, 1), candidate(1, 0.91, 100)]
    assert choose(found, one_standard_error=False).index == 1
    assert pareto_front(found, one_standard_error=False) == [found[1]]


@pytest.mark.parametrize(
    ("second", "chosen"),
    [
        # The standard error of 0.9 on 100 images is 0.03.
        ((0.871, 5), 1),
        ((0.869, 5), 0),
        ((0.90, 9), 1),
        ((0.90, 11), 0),
        ((0.95, 11), 0),
    ],
)
def test_of_those_within_one_standard_error_the_cheapest_is_taken(second, chosen):
    found = [candidate(0, 0.90, 10), candidate(1, *second)]
    if second[0] == 0.95:
        # Its own standard error is 0.0218: what was best is not within it.
        chosen = 1
    assert choose(found, one_standard_error=True).index == chosen


def test_a_perfect_accuracy_leaves_no_margin():
    found = [candidate(0, 1.0, 10), candidate(1, 0.99, 1), candidate(2, 1.0, 5)]
    assert choose(found, one_standard_error=True).index == 2


def test_alike_in_cost_the_more_accurate_then_the_lower_loss_then_the_earlier():
    found = [candidate(0, 0.90, 5), candidate(1, 0.91, 5, 0.7), candidate(2, 0.91, 5, 0.6), candidate(3, 0.91, 5, 0.6)]
    assert choose(found, one_standard_error=True).index == 2


@pytest.mark.parametrize("one_standard_error", [False, True])
def test_what_broke_down_is_chosen_only_where_all_did(one_standard_error):
    broken = candidate(0, 0, 0, reason="the loss is not finite")
    assert choose([broken, candidate(1, 0.1, 9)], one_standard_error=one_standard_error).index == 1
    assert choose([broken, candidate(1, 0, 0, reason="too")], one_standard_error=one_standard_error).index == 0
    assert broken in pareto_front([broken], one_standard_error=one_standard_error)


@pytest.mark.parametrize("one_standard_error", [False, True])
def test_whoever_is_chosen_in_the_end_was_hopeful_all_along(one_standard_error):
    draw = random.Random(0)
    for _ in range(300):
        found = [
            candidate(index, draw.randrange(11) / 10, draw.randrange(6), draw.randrange(3), images=10)
            if draw.random() < 0.9
            else candidate(index, 0, 0, reason="broke down")
            for index in range(8)
        ]
        best = choose(found, one_standard_error=one_standard_error)
        kept: list[Candidate] = []
        for so_far in itertools.accumulate([[one] for one in found]):
            kept = pareto_front(so_far, one_standard_error=one_standard_error)
            assert best in kept or best not in so_far
        assert len(kept) <= (8 if one_standard_error else 1)


def test_few_remain_hopeful():
    found = [candidate(index, index / 100, index) for index in range(50)]
    assert len(pareto_front(found, one_standard_error=True)) == 50
    assert (
        len(pareto_front([candidate(index, 0.5 - index / 100, index) for index in range(50)], one_standard_error=True))
        == 1
    )
