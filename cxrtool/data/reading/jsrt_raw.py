"""The raw pictures of the JSRT data base: 2048 x 2048 samples of 12 bits, 16 bits apart, and not a byte beside them.

Shiraishi et al. 2000, AJR 174:71-74, and the data base's description: big-endian, no header, 4,096 levels of density,
so that what is dark on the film has the high values. As nothing in the file says what it is, its name and its size do.
"""

from __future__ import annotations

import numpy as np

from cxrtool.data.reading.radiograph import Radiograph
from cxrtool.errors import ImageError

SUFFIX, SIDE, LEVELS = ".img", 2048, 4096
BYTES = SIDE * SIDE * 2


def is_raw(name: str, size: int) -> bool:
    """Whether a file is such a picture, by its name and its bytes."""
    return name.lower().endswith(SUFFIX) and size == BYTES


def read_raw(data: bytes) -> Radiograph:
    """Show one as a radiograph is looked at, air black: grey of 16 bits over the whole range.

    Raises:
        ImageError: A sample has more than 12 bits.
    """
    samples = np.frombuffer(data, ">u2").reshape(SIDE, SIDE)
    highest = int(samples.max())
    if highest >= LEVELS:
        raise ImageError(f"expected a raw picture of JSRT with samples below {LEVELS:,}, found {highest:,}")
    lookup = np.floor(np.arange(LEVELS)[::-1] * (65535 / (LEVELS - 1)) + 0.5).astype(np.uint16)
    return Radiograph(lookup[samples])
