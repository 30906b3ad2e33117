"""How two probabilities become three: the rules by name. Needs no numpy, so that a page of help can list them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray


def _product(a: FloatArray, b: FloatArray) -> FloatArray:
    from cxrtool.evaluation.fusion import joint_product

    return joint_product(a, b)


def _nested(a: FloatArray, b: FloatArray) -> FloatArray:
    from cxrtool.evaluation.fusion import joint_nested

    return joint_nested(a, b)


RULES: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {"product": _product, "nested": _nested}
"""From the probabilities (n,) of networks A and B to those (n, 3) of normal, pathological and covid."""
