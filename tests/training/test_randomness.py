import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from cxrtool.training.randomness import image_keys, permutation, philox, uniforms

ONES = 0xFFFFFFFF

# Published with Random123 (Salmon et al. 2011), file kat_vectors, entries philox4x32 10: counter, key, result.
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN, ids=["zeros", "ones", "pi"])
def test_philox_gives_the_published_answers(counter, key, expected):
    assert tuple(philox(np.array([counter], np.uint64), key)[0].tolist()) == expected


def test_philox_treats_every_counter_alone():
    counters = np.array([counter for counter, _, _ in KNOWN], np.uint64)
    together = philox(counters, (5, 6))
    for index in range(len(counters)):
        assert np.array_equal(philox(counters[index : index + 1], (5, 6))[0], together[index])


def test_numbers_are_uniform():
    numbers = uniforms(image_keys([f"im{i}" for i in range(2000)]), 3, 21, seed=11)
    assert numbers.shape == (2000, 21)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    for column in numbers.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-4


def test_columns_epochs_seeds_and_streams_have_nothing_in_common():
    keys = image_keys([f"im{i}" for i in range(3000)])
    columns = [
        *uniforms(keys, 0, 6, seed=1).T,
        uniforms(keys, 1, 1, seed=1)[:, 0],
        uniforms(keys, 0, 1, seed=2)[:, 0],
        uniforms(keys, 0, 1, seed=1 + 2**32)[:, 0],
        uniforms(keys, 0, 1, seed=1, stream=1)[:, 0],
    ]
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.07


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=8), min_size=1, max_size=20, unique=True), st.randoms(), st.integers(0, 2**64 - 1))
def test_an_image_s_numbers_depend_on_nothing_else(ids, random, seed):
    ids = [name for name in ids if name.isprintable()] or ["a"]
    alone = {name: uniforms(image_keys([name]), 4, 7, seed)[0] for name in ids}
    order = random.sample(ids, len(ids))
    for name, row in zip(order, uniforms(image_keys(order), 4, 7, seed), strict=True):
        assert np.array_equal(row, alone[name])


def test_asking_for_more_numbers_does_not_move_the_first():
    keys = image_keys(["a", "b"])
    assert np.array_equal(uniforms(keys, 0, 21, 5)[:, :3], uniforms(keys, 0, 3, 5))


def test_keys_are_fixed_for_ever():
    # They decide what every image of a resumed run looks like: another value would be another run.
    assert [hex(key) for key in image_keys(["im000", "Thorax é"])] == ["0x1fbc62de8250c00f", "0xee991bf2accf8998"]
    assert len(image_keys([])) == 0
    assert len(set(image_keys([f"im{i}" for i in range(5000)]).tolist())) == 5000


@pytest.mark.parametrize("seed", [0, 1, 2**63, 2**64 - 1])
def test_an_order_visits_every_item_once(seed):
    for epoch in range(3):
        assert sorted(permutation(101, epoch, seed)) == list(range(101))
    assert not np.array_equal(permutation(101, 0, seed), permutation(101, 1, seed))
    assert not np.array_equal(permutation(101, 0, seed), permutation(101, 0, seed ^ 1))
    assert np.array_equal(permutation(101, 2, seed), permutation(101, 2, seed))
