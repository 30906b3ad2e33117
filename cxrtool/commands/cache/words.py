"""Sizes and ages in words."""

from __future__ import annotations

import time

from cxrtool.errors import count_of

DAY, HOUR = 86400, 3600


def megabytes(size: float) -> str:
    """A size in bytes, in MB or GB.

    >>> megabytes(123456), megabytes(5.2e9)
    ('0.1 MB', '5.2 GB')
    """
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def age(moment: float) -> str:
    """How long ago a moment was, in days, or on the same day in hours."""
    seconds = max(0.0, time.time() - moment)
    return count_of(int(seconds // DAY), "day") if seconds >= DAY else count_of(int(seconds // HOUR), "hour")
