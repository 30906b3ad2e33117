"""What the folds of a run know beside their predictions: the network, its size, how long it was trained and on what."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cxrtool.data.manifest import read_table
from cxrtool.errors import InputError
from cxrtool.flow.folder import RUN_FILE, read_run_file
from cxrtool.flow.run import PREDICTIONS, check_whole, fold_name, is_run
from cxrtool.flow.seen import FITTED

HISTORY = "history.csv"
MODEL = "model.json"
FILES = (PREDICTIONS, RUN_FILE, MODEL, HISTORY, FITTED)
"""What is read of a fold."""

SIZES = ("parameters", "trained_parameters", "macs")


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run; empty of a CSV file.

    Attributes:
        told: `model`, `weights`, `parameters`, `trained_parameters`, `macs` of one image; `seconds`, `epochs` and
            `images` fitted, each as the mean over the folds; `seconds_total`; `devices`, `threads`. What is not known
            is not there.
        fitted: Images that each (repeat, fold) was fitted on.
        seen: (repeat, fold, image) of all that was fitted or validated on.
    """

    told: dict[str, Any] = field(default_factory=dict)
    fitted: dict[tuple[str, str], int] = field(default_factory=dict)
    seen: frozenset[tuple[str, str, str]] = frozenset()


def folders_of(path: Path, *, partial: bool = False) -> list[Path]:
    """The fold folders that an argument stands for: those of a run, or the one itself; none of a file."""
    if not path.is_dir():
        return []
    if is_run(path):
        return [path / fold_name(*pair) for pair in check_whole(path, partial=partial)]
    return [path] if (path / PREDICTIONS).is_file() else []


def read_facts(paths: Iterable[Path], *, partial: bool = False) -> RunFacts:
    """Read what the folds of one run, or of several that count as one, know.

    Args:
        paths: Runs, folds or files.
        partial: Folds may be missing.
    """
    folders = [folder for path in paths for folder in folders_of(path, partial=partial)]
    made = [read_run_file(folder) or {} for folder in folders]
    training = [content.get("training", {}) for content in made]
    models = [_read_model(folder) for folder in folders]
    told: dict[str, Any] = {}
    _put_same(told, "model", [model.get("architecture", {}).get("name") for model in models])
    _put_same(told, "weights", [model.get("trained", {}).get("weights") for model in models])
    for name in SIZES:
        _put_same(told, name, [notes.get(name) for notes in training])
    seconds = [notes.get("seconds") for notes in training]
    _put_mean(told, "seconds", seconds)
    if "seconds" in told:
        told["seconds_total"] = round(sum(seconds), 2)
    _put_mean(told, "epochs", [_rows(folder / HISTORY) for folder in folders])
    fitted: Counter[tuple[str, str]] = Counter()
    seen = set()
    for folder in folders:
        for row in _table(folder / FITTED):
            pair = row.get("repeat") or "0", row.get("fold") or "0"
            seen.add((*pair, row["image_id"]))
            fitted[pair] += row.get("subset", "train") == "train"
    if folders and len(fitted) == len(folders):
        _put_mean(told, "images", list(fitted.values()))
    devices = {str(notes["device"]) for notes in training if "device" in notes}
    threads = {content["threads"] for content in made if content.get("threads")}
    told |= {"devices": sorted(devices)} if devices else {}
    told |= {"threads": sorted(threads)} if threads else {}
    return RunFacts(told, dict(fitted), frozenset(seen))


def _put_same(told: dict[str, Any], name: str, values: Sequence[Any]) -> None:
    """Note what all folds agree on."""
    if values and values[0] is not None and all(value == values[0] for value in values):
        told[name] = values[0]


def _put_mean(told: dict[str, Any], name: str, values: Sequence[Any]) -> None:
    """Note the mean of what every fold knows."""
    if values and all(value is not None for value in values):
        told[name] = round(sum(values) / len(values), 2)


def _read_model(folder: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads((folder / MODEL).read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
    return {}


def _table(path: Path) -> list[dict[str, str]]:
    with contextlib.suppress(InputError):
        return read_table(path).rows if path.is_file() else []
    return []


def _rows(path: Path) -> int | None:
    return len(_table(path)) or None
