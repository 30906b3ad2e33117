"""Distribute groups of images over parts of given shares, so that every stratum is spread as the whole is.

Greedy, the largest group first, then improved by moving and exchanging groups while that helps. scikit-learn's
`StratifiedGroupKFold` has only equal parts, one level of strata and no improvement; it is the reference in the tests.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations, product

Counts = Mapping[Hashable, int]

EXCHANGE_LIMIT = 300
"""Up to this many groups, pairs are exchanged too; with more groups, moving single groups is enough."""

_TINY = 1e-8


def rank(*parts: object) -> str:
    """A pseudo-random text that depends on `parts` alone, so that the order of rows never affects a draw."""
    return hashlib.sha256("\0".join(map(str, parts)).encode(errors="backslashreplace")).hexdigest()


class _Table:
    """The excess of every stratum in each part over its expected count, and the cost of a change.

    The cost is Pearson's chi-squared: the squared excess over the expected count, summed over parts and strata.
    """

    def __init__(self, counts: Sequence[Counts], shares: Sequence[float]) -> None:
        self.totals = _sum(counts)
        self.shares = shares
        self.excess = [{key: -share * total for key, total in self.totals.items()} for share in shares]

    def cost(self, change: Counts, part: int) -> float:
        """What adding `change` to a part adds to the cost."""
        excess, share = self.excess[part], self.shares[part]
        terms = (count * (2 * excess[key] + count) / (share * self.totals[key]) for key, count in change.items())
        # Rounded, because sums in another order differ in the last bits, and ties must not depend on those.
        return round(sum(terms), 9)

    def add(self, change: Counts, part: int, sign: int = 1) -> None:
        for key, count in change.items():
            self.excess[part][key] += sign * count


def deal(
    counts: Sequence[Counts],
    shares: Sequence[float],
    names: Sequence[str],
    seed: Hashable,
    everywhere: Sequence[Hashable] = (),
) -> list[int]:
    """Assign every group to a part.

    Args:
        counts: For each group, its number of images in each stratum.
        shares: The share of each part, positive, adding up to 1.
        names: For each group a name that depends on its content alone.
        seed: Which of the many good divisions is drawn.
        everywhere: Strata of which every part gets a group, where there are enough groups; otherwise a small share of a
            small stratum could be empty.

    Returns:
        The part of each group.
    """
    table = _Table(counts, shares)
    ranks = [rank(seed, name) for name in names]
    order = sorted(range(len(counts)), key=lambda i: (-sum(counts[i].values()), ranks[i]))
    parts = [0] * len(counts)
    for group in order:
        costs = [(table.cost(counts[group], part), rank(ranks[group], part)) for part in range(len(shares))]
        parts[group] = costs.index(min(costs))
        table.add(counts[group], parts[group])
    order.sort(key=lambda i: ranks[i])
    while _move(table, counts, parts, order) or (
        len(order) <= EXCHANGE_LIMIT and _exchange(table, counts, parts, order)
    ):
        pass
    for key in everywhere:
        _reach_every_part(table, counts, parts, [group for group in order if counts[group].get(key)])
    return parts


def _move(table: _Table, counts: Sequence[Counts], parts: list[int], order: Sequence[int]) -> bool:
    moved = False
    for group in order:
        change, here = counts[group], parts[group]
        table.add(change, here, -1)
        costs = [table.cost(change, part) for part in range(len(table.shares))]
        best = min(costs)
        if best < costs[here] - _TINY:
            parts[group], moved = costs.index(best), True
        table.add(change, parts[group])
    return moved


def _exchange(table: _Table, counts: Sequence[Counts], parts: list[int], order: Sequence[int]) -> bool:
    # Groups with equal counts are interchangeable: one pair of each kind of pair is tried.
    kinds: list[dict[frozenset[tuple[Hashable, int]], list[int]]] = [{} for _ in table.shares]
    for group in order:
        kinds[parts[group]].setdefault(frozenset(counts[group].items()), []).append(group)
    for here, there in combinations(range(len(table.shares)), 2):
        for one, other in product(kinds[here], kinds[there]):
            if one == other:
                continue
            leaving, coming = dict(one), dict(other)
            change = {key: coming.get(key, 0) - leaving.get(key, 0) for key in leaving.keys() | coming.keys()}
            back = {key: -count for key, count in change.items()}
            if table.cost(change, here) + table.cost(back, there) < -_TINY:
                table.add(change, here)
                table.add(back, there)
                parts[kinds[here][one][0]], parts[kinds[there][other][0]] = there, here
                return True
    return False


def _reach_every_part(table: _Table, counts: Sequence[Counts], parts: list[int], holders: Sequence[int]) -> None:
    for part in range(len(table.shares)):
        held = Counter(parts[group] for group in holders)
        spare = [group for group in holders if held[parts[group]] > 1]
        if held[part] or not spare:
            continue
        costs = []
        for group in spare:
            table.add(counts[group], parts[group], -1)
            costs.append(table.cost(counts[group], part) - table.cost(counts[group], parts[group]))
            table.add(counts[group], parts[group])
        moved = spare[costs.index(min(costs))]
        table.add(counts[moved], parts[moved], -1)
        table.add(counts[moved], part)
        parts[moved] = part


def _sum(counts: Iterable[Counts]) -> Counter[Hashable]:
    total: Counter[Hashable] = Counter()
    for entry in counts:
        total.update(entry)
    return total
