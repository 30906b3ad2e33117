"""Several runs that differ in their seed as one method: each run becomes a repeat, and keeps its folds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.data.splitting.splits import run_order
from cxrtool.data.tables.predictions import Predictions, join
from cxrtool.errors import InputError, UsageError
from cxrtool.evaluation.together import SETTINGS, together
from cxrtool.flow.folder import read_run_file

if TYPE_CHECKING:
    from cxrtool.evaluation.scores import Scores

IGNORED = ("seed", "manifest", "splits", "preset")
"""Options in which runs of one method may differ."""


def check_together(sources: Mapping[str, Sequence[Path]]) -> None:
    """Raise a `UsageError` unless there are two inputs or more, all without a name."""
    paths = [path for some in sources.values() for path in some]
    if set(sources) != {""}:
        raise UsageError("--together: expected runs without names, found names", "cxrtool evaluate s0 s1 s2 --together")
    if len(paths) < 2:
        raise UsageError(
            f"--together: expected two runs or more, found {len(paths)}", "cxrtool evaluate s0 s1 s2 --together"
        )
    same = [str(path) for index, path in enumerate(paths) if path.resolve() in {p.resolve() for p in paths[:index]}]
    if same:
        raise UsageError(f"--together: expected different runs, found {same[0]} twice")


@dataclass(frozen=True)
class RunsTogether:
    """The predictions of several runs.

    Attributes:
        predictions: Of all runs; each repeat of each run has a number of its own.
        repeats: For each run the numbers of its repeats.
        paths: The runs.
    """

    predictions: Predictions
    repeats: list[set[str]]
    paths: list[Path]

    @classmethod
    def of(
        cls, parts: Sequence[Predictions], paths: Sequence[Path], chosen: Sequence[Predictions] | None = None
    ) -> RunsTogether:
        """Join the predictions of runs, or those rows of them that were chosen.

        Raises:
            InputError: Their classes differ.
        """
        numbered, repeats, count = [], [], 0
        for part, kept in zip(parts, chosen or parts, strict=True):
            own = sorted({row.get("repeat", "") for row in part.rows}, key=lambda name: run_order((name or "0", "0")))
            numbers = {name: str(count + index) for index, name in enumerate(own)}
            count += len(own)
            copy = replace(kept)
            copy.rows = [{**row, "repeat": numbers[row.get("repeat", "")]} for row in kept.rows]
            numbered.append(copy)
            repeats.append(set(numbers.values()))
        return cls(join(numbered, ", ".join(map(str, paths))), repeats, list(paths))

    def summarise(self, scores: Scores, **drawn: Any) -> tuple[dict[str, Any], list[str]]:
        """The entry `together` of `metrics.json`, and notes on what the runs do not share; options of `summarise`.

        Raises:
            InputError: A run has no row that is evaluated.
        """
        import numpy as np

        from cxrtool.evaluation.summary import summarise

        summaries, images = [], set()
        for path, repeats in zip(self.paths, self.repeats, strict=True):
            mask = np.array([row["repeat"] in repeats for row in scores.rows], bool)
            if not mask.any():
                raise InputError(f"{path}: expected images to evaluate, found none")
            own = scores.where(mask)
            numbers, dense = np.unique(own.run, return_inverse=True)
            own = replace(own, run=dense, runs=tuple(scores.runs[number] for number in numbers))
            images.add(frozenset(row["image_id"] for row in own.rows))
            summaries.append(summarise(own, **drawn))
        made = [read_run_file(path) or {} if path.is_dir() else {} for path in self.paths]
        facts = [_facts(path, content) for path, content in zip(self.paths, made, strict=True)]
        notes = ["The runs were tested on different images."] if len(images) > 1 else []
        return together(facts, summaries), [*notes, *_differences(made)]


def _facts(path: Path, made: Mapping[str, Any]) -> dict[str, str]:
    values = {**_options(made), "seed": made.get("seed", "")}
    return {"run": str(path), **{name: _text(values.get(name, "")) for name in SETTINGS}}


def _options(made: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry.get("value") for name, entry in made.get("options", {}).items()}


def _text(value: Any) -> str:
    return (
        value
        if isinstance(value, str)
        else ""
        if value is None
        else f"{value:g}"
        if isinstance(value, float)
        else json.dumps(value)
    )


def _differences(made: Sequence[Mapping[str, Any]]) -> list[str]:
    """A note on options, other than the seed, in which the runs differ, as far as they are known."""
    known = [_options(content) for content in made if content]
    different = []
    for name in sorted({name for options in known for name in options} - set(IGNORED)):
        values = list(dict.fromkeys(_text(options.get(name)) or "none" for options in known))
        if len(values) > 1:
            different.append(f"{name.replace('_', '-')} ({', '.join(values)})")
    if not different:
        return []
    return [f"The runs differ in more than the seed, so that they are not one method: {'; '.join(different)}."]
