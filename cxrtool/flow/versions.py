"""The versions of the libraries on which results depend."""

from __future__ import annotations

from functools import cache


@cache
def version_of(distribution: str) -> str:
    """The version of a distribution, asked for once: it takes milliseconds, and a step names its libraries often.

    Another build of a library, such as the desktop OpenCV, is a distribution of another name, and its version unknown.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return "unknown"
