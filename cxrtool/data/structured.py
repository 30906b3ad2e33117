"""JSON and TOML files, whoever wrote them: every reason for which one cannot be read is an OSError or a ValueError.

A device never ends, a pipe waits for ever, and the parsers raise a RecursionError for a text of brackets.
"""

from __future__ import annotations

import json
import re
import stat
import tomllib
from pathlib import Path
from typing import Any

from cxrtool.data.files import is_stream, read_stream

LARGEST = 1 << 28
"""Largest size of a file in bytes; the metrics of a run of a thousand folds have a tenth of it."""

LARGEST_OPTIONS = 1 << 22
"""Largest size of a file of options."""

_DEEP = re.compile(r"""(?<![\w"'-])(?:[\w"'-]+[ \t]*\.[ \t]*){33}""")


def load_json(path: Path, largest: int = LARGEST) -> Any:
    """The content of a JSON file.

    Raises:
        OSError: It is not there, or cannot be read.
        ValueError: It is no regular file, too large, no UTF-8, or no JSON; its text is the reason.
    """
    try:
        return json.loads(_text(path, largest))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def load_toml(path: Path, largest: int = LARGEST_OPTIONS) -> dict[str, Any]:
    """The content of a TOML file; errors as of `load_json`."""
    text = _text(path, largest)
    try:
        # The parser's time grows with the square of the parts of a key.
        if _DEEP.search(text):
            raise RecursionError
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _text(path: Path, largest: int) -> str:
    if is_stream(path):
        return read_stream(path).decode()
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        found = "a folder" if stat.S_ISDIR(status.st_mode) else "a device or pipe"
        raise ValueError(f"expected a regular file, found {found}")
    if status.st_size > largest:
        raise ValueError(f"expected at most {largest:,} bytes, found {status.st_size:,}")
    return path.read_text(encoding="utf-8")
