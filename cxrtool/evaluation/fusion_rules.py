"""How two probabilities become three: the rules by name. Imports numpy only when called, so `--help` can list them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray


def joint_product(a: FloatArray, b: FloatArray) -> FloatArray:
    """Product rule (n, 3): (1-a)(1-b), a(1-b), ab for normal, pathological, covid, scaled to sum 1.

    It assumes independent networks and drops the mass of conflict; it is not a calibrated probability. Where only
    conflict is left (a = 0, b = 1), it is (1/2, 0, 1/2).

    >>> import numpy as np
    >>> joint_product(np.array([0.5, 0.0]), np.array([0.5, 1.0])).round(3).tolist()
    [[0.333, 0.333, 0.333], [0.5, 0.0, 0.5]]
    """
    import numpy as np

    from cxrtool.evaluation.metrics.confusion import divide

    terms = np.stack([(1 - a) * (1 - b), a * (1 - b), a * b], axis=-1)
    total = terms.sum(axis=-1, keepdims=True)
    return np.where(total > 0, divide(terms, total), [0.5, 0.0, 0.5])


def joint_nested(a: FloatArray, b: FloatArray) -> FloatArray:
    """Nested rule (n, 3): 1-a, a-b, b for normal, pathological, covid; where b > a both become their mean.

    >>> import numpy as np
    >>> joint_nested(np.array([0.75, 0.25]), np.array([0.5, 0.5])).tolist()
    [[0.25, 0.25, 0.5], [0.625, 0.0, 0.375]]
    """
    import numpy as np

    mean = (a + b) / 2
    outer, inner = np.where(b > a, mean, a), np.where(b > a, mean, b)
    return np.stack([1 - outer, outer - inner, inner], axis=-1)


RULES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {"product": joint_product, "nested": joint_nested}
"""From the probabilities (n,) of networks A and B to those (n, 3) of normal, pathological and covid."""
