"""`info`: what a model's own validation images decided for it, in words and as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

THRESHOLDS = "Probability from which a class is called, by the sensitivity wanted"
NONE = "-"


def temperature_in_words(entry: Mapping[str, Any]) -> str:
    """The entry `calibration` of `model.json`.

    >>> temperature_in_words({"temperature": 1.5, "images": 80, "reason": None})
    'temperature 1.5, fitted on 80 validation images'
    >>> temperature_in_words({"temperature": 1.0, "images": 0, "reason": "no validation images"})
    'none: no validation images'
    """
    if entry["reason"]:
        return f"none: {entry['reason']}"
    return f"temperature {entry['temperature']:.3g}, fitted on {entry['images']} validation images"


def thresholds_as_table(entry: Mapping[str, Any]) -> tuple[str, list[str], list[list[str]]]:
    """The entry `thresholds` of `model.json`: title, columns and a row a class; a dash where images were too few."""
    sensitivities = list(next(iter(entry.values())))
    rows = []
    for name, chosen in entry.items():
        values = [chosen[s]["threshold"] for s in sensitivities]
        images = str(chosen[sensitivities[0]]["positives"])
        rows.append([name, images, *(NONE if value is None else f"{value:.3f}" for value in values)])
    return THRESHOLDS, ["class", "validation images", *sensitivities], rows
