import itertools

import pytest

from cxrtool.errors import UsageError
from cxrtool.models.covid_xnet import CovidXNet
from cxrtool.models.kernels import CHOICES, FAMILIES, KERNELS, AllKernels, deepest, expand, filters, parse, side_after
from cxrtool.models.network import count_parameters


@pytest.mark.parametrize(("family", "count"), [("uniform", 35), ("nonincreasing", 791), ("all", 97_655)])
def test_a_family_holds_as_many_networks_as_there_are(family, count):
    networks = FAMILIES[family](128)
    assert len(networks) == count == len(set(networks))
    kernels = [parse(text) for text in networks]
    assert {kernel for found in kernels for kernel in found} == set(CHOICES)
    assert {len(found) for found in kernels} == set(range(1, 8))
    if family == "uniform":
        assert all(len(set(found)) == 1 for found in kernels)
    else:
        assert KERNELS in kernels
    if family == "nonincreasing":
        assert all(a >= b for found in kernels for a, b in itertools.pairwise(found))


def test_the_deepest_has_a_map_larger_than_one_cell():
    assert (deepest(128), deepest(129), deepest(127), deepest(64), deepest(2)) == (7, 7, 6, 6, 1)
    for size in range(16, 600, 7):
        assert side_after(size, deepest(size)) > 1
        assert side_after(size, deepest(size) + 1) == 1
    assert side_after(128, 5) == 8


def test_all_networks_are_numbered_and_none_is_written_down():
    small = AllKernels(3)
    expected = [",".join(map(str, found)) for depth in (1, 2, 3) for found in itertools.product(CHOICES, repeat=depth)]
    assert list(small) == expected
    assert [small.index(text) for text in expected] == list(range(len(expected)))
    assert small[-1] == "11,11,11"
    assert small[3:6] == expected[3:6]
    with pytest.raises(IndexError):
        small[len(small)]
    large = AllKernels(13)
    assert len(large) == sum(5**depth for depth in range(1, 14)) > 10**9
    assert large[large.index("3,5,7,9,11,3,5,7,9,11,3,5,7")] == "3,5,7,9,11,3,5,7,9,11,3,5,7"
    for other in ("4", "13", "3,3,3,3", "x"):
        assert other not in small
        with pytest.raises(ValueError, match=other):
            small.index(other)
    assert "" not in small


def test_filters_double_up_to_those_of_the_paper_s_layout():
    assert filters(5) == (16, 32, 64, 128, 256)
    assert filters(7) == (16, 32, 64, 128, 256, 256, 256)
    assert count_parameters(CovidXNet(2, kernels=(3,)))["parameters"] == 9 * 16 + 16 + 16 * 2 + 2


def test_families_and_networks_can_be_put_together():
    assert expand(["3, 3"], 128) == ["3,3"]
    assert len(expand(["uniform"], 64)) == 30
    both = expand(["5,5,5,3,3", "uniform", "3,3"], 128)
    assert both[0] == "5,5,5,3,3"
    assert len(both) == 36 == len(set(both))


@pytest.mark.parametrize("text", ["", "4", "3,,3", "33", "3;3", "-3", "3.5", "unifrm"])
def test_what_are_no_kernels_is_told(text):
    with pytest.raises(UsageError, match="--kernels: expected odd numbers up to 31"):
        parse(text)
