"""Labels that people write in more than one way."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable


def plain_label(label: str) -> str:
    """A label without case, blanks, hyphens and underscores.

    >>> plain_label("Viral Pneumonia") == plain_label("viral_pneumonia")
    True
    """
    return re.sub(r"[\s_-]+", "", label).casefold()


def warn_of_spellings(labels: Iterable[str]) -> str:
    """A warning where classes differ in their spelling alone; else an empty text.

    >>> warn_of_spellings(["covid", "COVID", "normal"])
    "the classes 'COVID' and 'covid' differ in their spelling alone; to join them: cxrtool select --relabel COVID=covid"
    """
    first: dict[str, str] = {}
    for label in sorted(set(filter(None, labels))):
        other = first.setdefault(plain_label(label), label)
        if other != label:
            return (
                f"the classes '{other}' and '{label}' differ in their spelling alone; to join them: "
                f"cxrtool select --relabel {shlex.quote(f'{other}={label}')}"
            )
    return ""
