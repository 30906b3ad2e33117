"""From stored values to grey: the window of a DICOM image (PS3.3, section C.11.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _linear(values: Floats, centre: float, width: float) -> Floats:
    # C.11.2.1.2.1: the half and the one make a window of width w show exactly w integer values.
    if width < 1:
        raise ValueError("a LINEAR window must be at least 1 wide")
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)


def _linear_exact(values: Floats, centre: float, width: float) -> Floats:
    # C.11.2.1.3.2
    if width <= 0:
        raise ValueError("a LINEAR_EXACT window must be wider than 0")
    return np.clip((values - centre) / width + 0.5, 0, 1)


def _sigmoid(values: Floats, centre: float, width: float) -> Floats:
    # C.11.2.1.3.1; beyond 700 the exponential overflows, and the result is 0 or 1 long before that.
    if width <= 0:
        raise ValueError("a SIGMOID window must be wider than 0")
    return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700))))


FUNCTIONS: dict[str, Callable[[Floats, float, float], Floats]] = {
    "LINEAR": _linear,
    "LINEAR_EXACT": _linear_exact,
    "SIGMOID": _sigmoid,
}


def apply_window(values: Floats, centre: float, width: float, function: str = "LINEAR") -> Floats:
    """Map values to brightness from 0 (below the window) to 1 (above it).

    Args:
        values: Any shape, after the modality transformation.
        centre: In values.
        width: In values.
        function: `LINEAR`, `LINEAR_EXACT` or `SIGMOID`.

    Raises:
        ValueError: The function is unknown, or the width is not allowed for it.

    >>> apply_window(np.array([0.0, 2048.0, 4095.0]), 2048, 4096).round(4).tolist()
    [0.0, 0.5001, 1.0]
    """
    if function not in FUNCTIONS:
        raise ValueError(f"unknown window function {function}")
    return FUNCTIONS[function](np.asarray(values, np.float64), centre, width)


def quantise(brightness: Floats, bits: int, *, inverted: bool = False) -> NDArray[np.unsignedinteger[Any]]:
    """Round brightness from [0, 1] to unsigned integers of 8 or 16 bits.

    Halves are rounded up, also when inverting the brightness has lost its last digits: an image stored as MONOCHROME1
    and the same image in MONOCHROME2 must be equal to the last bit.
    """
    full = (1 << bits) - 1
    scaled = (1 - brightness if inverted else brightness) * full
    return np.floor(scaled + 0.5 + 1e-6).clip(0, full).astype(np.uint8 if bits == 8 else np.uint16)
