"""The raw files of the JSRT database: 2048 x 2048 samples of 12 bits, stored in 16 bits, without a header.

Shiraishi et al. 2000, AJR 174:71-74, and the description of the database: big-endian, 4,096 levels of density, so that
dark areas of the film have high values. Without a header, such a file is recognised by its name and size.
"""

from __future__ import annotations

import numpy as np

from cxrtool.data.reading.radiograph import Radiograph
from cxrtool.errors import ImageError

SUFFIX, SIDE, LEVELS = ".img", 2048, 4096
BYTES = SIDE * SIDE * 2


def is_raw(name: str, size: int) -> bool:
    """Whether a file is a raw JSRT image, by its name and its size in bytes."""
    return name.lower().endswith(SUFFIX) and size == BYTES


def read_raw(data: bytes) -> Radiograph:
    """Read a raw JSRT image as grey of 16 bits over the whole range; air is black.

    Raises:
        ImageError: A sample has more than 12 bits.
    """
    samples = np.frombuffer(data, ">u2").reshape(SIDE, SIDE)
    highest = int(samples.max())
    if highest >= LEVELS:
        raise ImageError(f"expected a raw JSRT image with samples below {LEVELS:,}, found {highest:,}")
    lookup = np.floor(np.arange(LEVELS)[::-1] * (65535 / (LEVELS - 1)) + 0.5).astype(np.uint16)
    return Radiograph(lookup[samples])
