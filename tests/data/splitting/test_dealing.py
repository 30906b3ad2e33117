import random
import time
from collections import Counter

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from cxrtool.data.splitting.dealing import deal, rank


def world(groups, seed=0, largest=12):
    """Groups of one to many images of three unequal classes with three strata each."""
    draw = random.Random(seed)
    counts = []
    for _ in range(groups):
        label = draw.choices("abc", [0.6, 0.3, 0.1])[0]
        size = min(largest, int(draw.paretovariate(1.5)))
        strata = [draw.choice("xyz") for _ in range(size)]
        counts.append(
            Counter({"images": size, label: size, ("patients", label): 1}) + Counter((label, s) for s in strata)
        )
    return counts


def worst(counts, parts, shares):
    """The largest deviation of any stratum of any part from its share, in images."""
    total = sum(counts, Counter())
    held = [Counter() for _ in shares]
    for count, part in zip(counts, parts, strict=True):
        held[part].update(count)
    return max(abs(held[p][key] - share * total[key]) for p, share in enumerate(shares) for key in total)


def names(counts):
    return [f"g{i}" for i in range(len(counts))]


@pytest.mark.parametrize("shares", [[0.2] * 5, [0.6, 0.2, 0.2], [0.9, 0.1], [0.5, 0.5]])
@pytest.mark.parametrize("seed", range(3))
def test_every_stratum_gets_its_share(shares, seed):
    counts = world(250, seed, largest=5)
    assert worst(counts, deal(counts, shares, names(counts), seed), shares) <= 1.5


def test_it_is_no_worse_than_scikit_learn():
    ours, theirs = [], []
    for seed in range(5):
        counts = world(200, seed)
        labels = np.array([next(k for k in c if k in ("a", "b", "c")) for c in counts])
        sizes = [c["images"] for c in counts]
        groups = np.repeat(np.arange(200), sizes)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed)
        parts = np.zeros(200, int)
        for fold, (_, test) in enumerate(folds.split(groups, np.repeat(labels, sizes), groups)):
            parts[groups[test]] = fold
        theirs.append(worst(counts, parts, [0.2] * 5))
        ours.append(worst(counts, deal(counts, [0.2] * 5, names(counts), seed), [0.2] * 5))
    assert sum(ours) < sum(theirs)
    assert max(ours) <= max(theirs)


def test_the_order_of_groups_does_not_matter():
    counts = world(80)
    parts = dict(zip(names(counts), deal(counts, [0.6, 0.2, 0.2], names(counts), 4), strict=True))
    order = random.Random(1).sample(range(80), 80)
    # The order within a group's counts must not matter either: sums of floats hang on it.
    mixed = [Counter(dict(random.Random(i).sample(list(counts[i].items()), len(counts[i])))) for i in order]
    again = deal(mixed, [0.6, 0.2, 0.2], [names(counts)[i] for i in order], 4)
    assert dict(zip([names(counts)[i] for i in order], again, strict=True)) == parts


def test_seeds_draw_different_divisions():
    counts = world(80)
    drawn = {tuple(deal(counts, [0.2] * 5, names(counts), seed)) for seed in range(20)}
    assert len(drawn) == 20


def test_every_group_meets_every_other_over_the_seeds():
    # A draw that always put the same two groups apart would make repeats no repeats.
    counts = [Counter({"images": 1})] * 10
    together = Counter()
    for seed in range(400):
        parts = deal(counts, [0.5, 0.5], names(counts), seed)
        together.update((i, j) for i in range(10) for j in range(i) if parts[i] == parts[j])
    # Two of ten meet in a half with probability 4/9: 178 of 400, standard deviation 10.
    assert min(together.values()) > 130
    assert max(together.values()) < 226


def test_a_small_share_of_a_small_stratum_still_comes_to_something():
    counts = [Counter({"images": 2, label: 2}) for label in "aaaabbbb"] + [Counter({"images": 9, "c": 9})]
    for seed in range(20):
        parts = deal(counts, [0.9, 0.1], names(counts), seed, everywhere=["a", "b", "c", "none"])
        for label in "ab":
            assert {part for count, part in zip(counts, parts, strict=True) if label in count} == {0, 1}
        # There is one group of c only: it stays where most images belong.
        assert parts[8] == 0


def test_many_groups_take_seconds():
    counts = world(20_000)
    started = time.monotonic()
    parts = deal(counts, [0.2] * 5, names(counts), 0)
    assert time.monotonic() - started < 20
    assert worst(counts, parts, [0.2] * 5) <= 2


def test_rank_hangs_on_its_parts_alone():
    assert rank(1, "a") == rank(1, "a")
    assert len({rank(1, "a"), rank(1, "b"), rank(2, "a"), rank(1, "a", ""), rank("1a")}) == 5
    assert rank("bad\udce9name")
