import itertools
import random
from pathlib import Path

import pytest

from cxrtool.commands.train.grid import Candidate, choose, hopeful


def candidate(place, accuracy, macs, loss=0.5, images=100, reason=""):
    score = {"validation_accuracy": accuracy, "validation_loss": loss, "parameters": 1000 - place, "macs": macs,
             "images": images, "reason": ""}  # fmt: skip
    return Candidate(place, Path(), {"reason": reason} if reason else score)


def test_accuracy_alone_decides_where_the_search_is_general():
    found = [candidate(0, 0.90, 1), candidate(1, 0.91, 100)]
    assert choose(found, thrifty=False).place == 1
    assert hopeful(found, thrifty=False) == [found[1]]


@pytest.mark.parametrize(
    ("second", "chosen"),
    [
        # The standard error of 0.9 on 100 images is 0.03.
        ((0.871, 5), 1), ((0.869, 5), 0), ((0.90, 9), 1), ((0.90, 11), 0), ((0.95, 11), 0),
    ],
)  # fmt: skip
def test_of_those_within_one_standard_error_the_cheapest_is_taken(second, chosen):
    found = [candidate(0, 0.90, 10), candidate(1, *second)]
    if second[0] == 0.95:
        # Its own standard error is 0.0218: what was best is not within it.
        chosen = 1
    assert choose(found, thrifty=True).place == chosen


def test_a_perfect_accuracy_leaves_no_margin():
    found = [candidate(0, 1.0, 10), candidate(1, 0.99, 1), candidate(2, 1.0, 5)]
    assert choose(found, thrifty=True).place == 2


def test_alike_in_cost_the_more_accurate_then_the_lower_loss_then_the_earlier():
    found = [candidate(0, 0.90, 5), candidate(1, 0.91, 5, 0.7), candidate(2, 0.91, 5, 0.6), candidate(3, 0.91, 5, 0.6)]
    assert choose(found, thrifty=True).place == 2


@pytest.mark.parametrize("thrifty", [False, True])
def test_what_broke_down_is_chosen_only_where_all_did(thrifty):
    broken = candidate(0, 0, 0, reason="the loss is not finite")
    assert choose([broken, candidate(1, 0.1, 9)], thrifty=thrifty).place == 1
    assert choose([broken, candidate(1, 0, 0, reason="too")], thrifty=thrifty).place == 0
    assert broken in hopeful([broken], thrifty=thrifty)


@pytest.mark.parametrize("thrifty", [False, True])
def test_whoever_is_chosen_in_the_end_was_hopeful_all_along(thrifty):
    draw = random.Random(0)
    for _ in range(300):
        found = [
            candidate(place, draw.randrange(11) / 10, draw.randrange(6), draw.randrange(3), images=10)
            if draw.random() < 0.9 else candidate(place, 0, 0, reason="broke down") for place in range(8)
        ]  # fmt: skip
        best = choose(found, thrifty=thrifty)
        kept: list[Candidate] = []
        for so_far in itertools.accumulate([[one] for one in found]):
            kept = hopeful(so_far, thrifty=thrifty)
            assert best in kept or best not in so_far
        assert len(kept) <= (8 if thrifty else 1)


def test_few_remain_hopeful():
    found = [candidate(place, place / 100, place) for place in range(50)]
    assert len(hopeful(found, thrifty=True)) == 50
    assert len(hopeful([candidate(place, 0.5 - place / 100, place) for place in range(50)], thrifty=True)) == 1
