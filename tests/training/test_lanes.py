import threading
import time

import numpy as np
import pytest
import torch

from cxrtool.models.parts import SHIPPED
from cxrtool.training.lanes import Lanes
from cxrtool.training.lung_finder import LungFinder

CPU = torch.device("cpu")


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(("count", "lanes"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (8, 4), (10, 2)])
def test_lanes_divide_the_threads_equally_and_give_them_back(count, lanes, threads):
    threads(count)
    with Lanes(CPU) as found:
        told = [each for _, each in found.map(lambda _: torch.get_num_threads(), range(9))]
    assert found.count == lanes
    assert told == [count // lanes] * 9
    assert torch.get_num_threads() == count


def test_a_gpu_has_one_lane(threads):
    threads(4)
    with Lanes(torch.device("cuda")) as found:
        assert found.count == 1


def test_results_come_in_the_order_of_the_items_whatever_takes_long(threads):
    threads(3)
    with Lanes(CPU) as lanes:
        assert list(lanes.map(lambda k: time.sleep(0.02 * (k % 3 == 0)) or k * k, range(12))) == [
            (k, k * k) for k in range(12)
        ]
        assert list(lanes.map(str, [])) == []


def test_all_lanes_compute_at_once_and_only_one_more_item_is_taken(threads):
    threads(3)
    meeting, taken = threading.Barrier(3, timeout=20), []

    def items():
        for k in range(9):
            taken.append(k)
            yield k

    with Lanes(CPU) as lanes:
        found = lanes.map(lambda k: meeting.wait() if k < 3 else k, items())
        next(found)
        assert taken == [0, 1, 2, 3]


def test_two_maps_share_the_lanes_and_one_may_feed_the_other(threads):
    threads(2)
    running, most = [0], [0]
    lock = threading.Lock()

    def work(k):
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return k + 1

    with Lanes(CPU) as lanes:
        first = (result for _, result in lanes.map(work, range(8)))
        assert [result for _, result in lanes.map(work, first)] == [k + 2 for k in range(8)]
    assert most[0] == 2


@pytest.mark.parametrize("place", ["work", "items"])
def test_an_error_in_a_lane_is_raised_in_the_caller(place, threads):
    threads(2)

    def items():
        yield from range(3)
        if place == "items":
            raise ValueError(place)
        yield 3

    def work(k):
        if place == "work" and k == 2:
            raise ValueError(place)
        return k

    with Lanes(CPU) as lanes:
        found = lanes.map(work, items())
        with pytest.raises(ValueError, match=place):
            list(found)


def test_a_network_answers_in_lanes_as_it_does_alone(threads):
    finder = LungFinder(SHIPPED / "lungs-default")
    batches = np.random.default_rng(0).random((5, 4, 256, 256), np.float32)
    threads(1)
    alone = [finder(batch) for batch in batches]
    threads(2)
    with Lanes(CPU) as lanes:
        beside = [found for _, found in lanes.map(finder, batches)]
    assert np.array_equal(alone, beside)
