"""Grid search in `train`: every fold tries all combinations and keeps the best on its validation images.

Each candidate is a step folder `candidates/rRfF/ID/`, whose name is the digest of everything that affects it: an
interrupted search continues with the same candidate, and a larger grid trains only what is new. A candidate is never
run on a test image; only the chosen one is, after the choice. The rules are `ACCURATE` and `ONE_STANDARD_ERROR`.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxrtool.commands.train.combinations import KERNELS, Combination, flag, show
from cxrtool.data.confinement import also_in
from cxrtool.data.file_names import HISTORY, MODEL_WEIGHTS
from cxrtool.data.files import atomic_write
from cxrtool.data.structured import load_json
from cxrtool.data.tables.manifest import Row, read_table, write_table
from cxrtool.errors import CxrtoolError, DivergedError, InputError, count_of
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.fold_training import CANDIDATES, GRID, PROCESSES, FoldTrainer, Task
from cxrtool.flow.folder import StepFolder, forget, read_run_file
from cxrtool.flow.settings import Silent
from cxrtool.flow.signals import StopRequest

if TYPE_CHECKING:
    from cxrtool.training.fitting import Fitted
    from cxrtool.training.store import Store


ACCURATE = "the highest validation accuracy, then the lower loss, then fewer parameters"
ONE_STANDARD_ERROR = (
    "of those within one standard error, sqrt(p (1 - p) / n), of the highest validation accuracy, the fewest MACs, "
    "then the higher accuracy, then the lower loss"
)


@dataclass(frozen=True)
class Candidate:
    """One combination, trained on one fold.

    Attributes:
        index: Among the combinations, from 0.
        score: Its `score.json`; `reason` is not empty if the training failed.
    """

    index: int
    path: Path
    score: dict[str, Any]

    @property
    def rank(self) -> tuple[float, ...]:
        """Sort key, best first: higher validation accuracy, lower loss, fewer parameters, lower index."""
        if self.score["reason"]:
            return (1.0, 0.0, 0.0, self.index)
        return (
            -self.score["validation_accuracy"],
            self.score["validation_loss"],
            self.score["parameters"],
            self.index,
        )

    @property
    def cost(self) -> tuple[float, ...]:
        """Sort key of candidates that are accurate enough, best first."""
        if self.score["reason"]:
            return (math.inf, 0.0, 0.0, self.index)
        return (self.score["macs"], -self.score["validation_accuracy"], self.score["validation_loss"], self.index)


def choose(candidates: Sequence[Candidate], *, one_standard_error: bool) -> Candidate:
    """The candidate that a fold keeps.

    Args:
        candidates: At least one; a failed one is chosen only if all failed.
        one_standard_error: Choose by `ONE_STANDARD_ERROR`, else by `ACCURATE`.
    """
    best = min(candidates, key=lambda candidate: candidate.rank)
    if not one_standard_error or best.score["reason"]:
        return best
    accuracy, images = best.score["validation_accuracy"], best.score["images"]
    least = accuracy - math.sqrt(accuracy * (1 - accuracy) / images)
    enough = [c for c in candidates if not c.score["reason"] and c.score["validation_accuracy"] >= least]
    return min(enough, key=lambda candidate: candidate.cost)


def pareto_front(candidates: Sequence[Candidate], *, one_standard_error: bool) -> list[Candidate]:
    """The candidates that can still be chosen, whatever is tried later: the weights of all others can be deleted.

    With `ONE_STANDARD_ERROR` these are the candidates for which no cheaper one is at least as accurate.
    """
    if not one_standard_error:
        return [choose(candidates, one_standard_error=False)]
    found: list[Candidate] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.cost):
        if not found or candidate.rank[0] < min(other.rank[0] for other in found):
            found.append(candidate)
    return found


SCORE = "score.json"
FIGURES = ("validation_accuracy", "validation_loss", "epoch_kept", "parameters", "macs")
COLUMNS = (*FIGURES, "seconds", "chosen", "reason", "candidate")
SHOWN = 20
"""Maximum number of combinations in the printed table; the file has all."""


def check_validation(assignments: Sequence[Assignment]) -> None:
    """Check that every fold has validation images.

    Raises:
        InputError: One has none.
    """
    without = [assignment.name for assignment in assignments if not assignment.subsets["validation"]]
    if without:
        raise InputError(
            f"--grid: {len(without)} of {count_of(len(assignments), 'fold')} "
            f"have no validation images to choose a combination by, "
            f"such as {without[0]}",
            "split again with some: `cxrtool split MANIFEST --folds 5 --validation 0.1`; test images must not be used "
            "for the choice",
        )


class GridTrainer:
    """Trains folds, each with the best of several combinations; `tried` if all were by `train_candidate`."""

    def __init__(self, combinations: Sequence[Combination], task: Task, *, tried: bool = False) -> None:
        self.combinations, self.task, self.tried = combinations, task, tried
        self.trainers = [FoldTrainer(found.options, task, index) for index, found in enumerate(combinations)]
        self.shapes = {trainer.shape for trainer in self.trainers}
        self.one_standard_error = KERNELS in combinations[0].changes

    def train_fold(self, assignment: Assignment, request: StopRequest) -> None:
        """Try every combination on one fold, unless it is complete, and write its folder with the best.

        Raises:
            DivergedError: Not one combination could be trained.
        """
        report, folder = self.task.settings.report, self.task.folder(assignment)
        if not folder.needs_work():
            return
        with folder.build() as build:
            tried: list[Candidate] = []
            for index in range(len(self.combinations)):
                request.raise_if_stopped()
                tried.append(self._try(index, assignment, request))
                _drop_weights(tried, pareto_front(tried, one_standard_error=self.one_standard_error))
            best = choose(tried, one_standard_error=self.one_standard_error)
            if best.score["reason"]:
                raise DivergedError(
                    f"fold {assignment.name}: none of "
                    f"{count_of(len(self.combinations), 'combination')} could be trained, the "
                    f"first: {best.score['reason']}",
                    "the learning rate is probably too high: --grid lr=1e-3,1e-4",
                )
            _drop_weights(tried, [best])
            if not (best.path / MODEL_WEIGHTS).exists():
                # Its weights were deleted because an earlier grid had a better candidate.
                best = self._try(best.index, assignment, request, again=True)
            chosen = self.combinations[best.index]
            of = f"of {len(self.combinations)} on {best.score['images']} validation images"
            report.say(f"{assignment.name}: chose {chosen.name} {of}")
            trainer = self.trainers[best.index]
            store, usable = trainer.open(assignment, request)
            fitted = self._predict(best, trainer, usable, store, request)
            trainer.write(build, usable, store, fitted)
            # The folder describes the combination that it holds; its digest stays that of the search.
            own = self._folder(best.index, assignment.name)
            folder.plan = replace(folder.plan, options=own.plan.options)
            folder.settings = replace(folder.settings, origins=own.settings.origins)
            rule = ONE_STANDARD_ERROR if self.one_standard_error else ACCURATE
            found = {"chosen": best.path.name, "tried": len(self.combinations), "rule": rule}
            trainer.close(build, usable, store, fitted, {"digest": folder.digest, "grid": found})

    def train_candidate(self, index: int, assignment: Assignment, request: StopRequest) -> None:
        """Try one combination on one fold, beside others: `train_fold` finds it done."""
        self._try(index, assignment, request)
        folders = ((i, self._folder(i, assignment.name)) for i in range(len(self.combinations)))
        done = [Candidate(i, f.out, _read_score(f.out)) for i, f in folders if f.out.exists() and not f.needs_work()]
        _drop_weights(done, pareto_front(done, one_standard_error=self.one_standard_error))

    def finish(self, folds: Sequence[str], *, whole: bool) -> list[Row]:
        """Write `grid.csv` of the complete folds; once all are complete, remove the candidates of earlier grids.

        Returns:
            Its rows.
        """
        run = self.task.container.out
        keys = list(self.combinations[0].changes)
        rows: list[Row] = []
        known = {name: [self._folder(index, name) for index in range(len(self.combinations))] for name in folds}
        for name, folders in known.items():
            repeat, fold = runs.parse_fold(name)
            chosen = (read_run_file(run / name) or {}).get("grid", {}).get("chosen")
            for combination, folder in zip(self.combinations, folders, strict=True):
                # The user may have deleted the candidates: a complete run does not need them.
                score = _read_score(folder.out) if (folder.out / SCORE).exists() else {}
                made = read_run_file(folder.out) or {}
                score["seconds"] = made.get("training", {}).get("seconds")
                figures = {key: _cell(score.get(key)) for key in (*FIGURES, "seconds", "reason")}
                rows.append(
                    {
                        "repeat": repeat,
                        "fold": fold,
                        **{flag(k): show(v) for k, v in combination.changes.items()},
                        **figures,
                        "chosen": "yes" if folder.out.name == chosen else "no",
                        "candidate": folder.out.name,
                    }
                )
        write_table(run / GRID, ["repeat", "fold", *map(flag, keys), *COLUMNS], rows)
        if whole:
            _remove_others(run / CANDIDATES, {folder.out for folders in known.values() for folder in folders})
        return rows

    def _folder(self, index: int, fold: str) -> StepFolder:
        container, combination = self.task.container, self.combinations[index]
        repeat, number = runs.parse_fold(fold)
        # The same options as in a plain training of this combination.
        known = container.plan.options
        shared = {name: known[name] for name in ("splits", "precision", "transform", PROCESSES) if name in known}
        plan = replace(
            container.plan, options={**combination.options.identity(), **shared, "repeat": repeat, "fold": number}
        )
        origins = {**self.task.settings.origins, **dict.fromkeys(combination.changes, "grid")}
        force = self.task.settings.force and not self.tried
        quiet = replace(self.task.settings, report=Silent(), origins=origins, force=force)
        name = plan.digest(quiet)[:12]
        return StepFolder(container.out / CANDIDATES / fold / name, plan, quiet, marker=SCORE)

    def _try(self, index: int, assignment: Assignment, request: StopRequest, *, again: bool = False) -> Candidate:
        """Train one combination on one fold, unless it is complete."""
        trainer, report = self.trainers[index], self.task.settings.report
        name = f"{assignment.name}  {self.combinations[index].name}"
        folder = self._folder(index, assignment.name)
        if folder.needs_work() or again:
            store, usable = trainer.open(assignment, request)
            check_validation([usable])
            with folder.build() as build:
                notes: dict[str, Any] = {}
                try:
                    fitted = trainer.fit(usable, store, ("validation",), build.path / "state", request, name)
                    score = self._score(trainer, usable, fitted)
                    notes = fitted.notes
                    self._write(build.path, trainer, usable, fitted)
                except DivergedError as error:
                    score = {"reason": error.message}
                    report.warn(f"{name}: {error.message}; it cannot be chosen")
                shutil.rmtree(build.path / "state", ignore_errors=True)
                atomic_write(build.path / SCORE, json.dumps(score, indent=1) + "\n")
                counts = {subset: len(usable.subsets[subset]) for subset in ("train", "validation")}
                build.close(counts=counts, extra={"training": notes}, wanted=True)
            if not score["reason"]:
                figures = (score["validation_accuracy"], score["validation_loss"])
                report.say(f"{name}: validation accuracy {figures[0]:.3f}, loss {figures[1]:.4f}")
        return Candidate(index, folder.out, _read_score(folder.out))

    def _score(self, trainer: FoldTrainer, assignment: Assignment, fitted: Fitted) -> dict[str, Any]:
        """Accuracy and mean negative log-likelihood on the validation images, in full precision.

        The losses of the history may have class weights, which may differ between combinations.
        """
        import numpy as np

        rows = self.task.manifest.rows
        truth = np.array([trainer.classes.index(rows[i]["label"]) for i in assignment.subsets["validation"]])
        own = fitted.probabilities[np.arange(len(truth)), truth]
        return {
            "validation_accuracy": float((fitted.probabilities.argmax(1) == truth).mean()),
            "validation_loss": float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean()),
            "images": len(truth),
            "epoch_kept": fitted.history.kept,
            "parameters": fitted.notes["parameters"],
            "macs": fitted.notes["macs"],
            "reason": "",
        }

    def _write(self, path: Path, trainer: FoldTrainer, assignment: Assignment, fitted: Fitted) -> None:
        from cxrtool.training.checkpoint import save_model
        from cxrtool.training.curves import write_history

        save_model(path, fitted.network, trainer.describe(assignment, fitted))
        write_history(path / HISTORY, fitted.history.rows)

    def _predict(
        self, best: Candidate, trainer: FoldTrainer, assignment: Assignment, store: Store, request: StopRequest
    ) -> Fitted:
        """The chosen candidate as a trained fold: only now it is run on the test images.

        Everything is read from its folder, whether it was trained just now or before an interruption.
        """
        import numpy as np

        from cxrtool.training.checkpoint import load_model
        from cxrtool.training.engine import History
        from cxrtool.training.fitting import Fitted, predict

        network, description = load_model(best.path)
        table = read_table(best.path / HISTORY)
        history = [{name: float(row[name]) if row[name] else None for name in table.columns} for row in table.rows]
        asked = np.array([i for name in ("validation", "test") for i in assignment.subsets[name]], np.int64)
        probabilities = predict(
            trainer.design(assignment), network, store, self.task.manifest.column("image_id"), asked, stop=request.error
        )
        made = read_run_file(best.path)
        if made is None:
            raise CxrtoolError(f"{best.path}: expected a run.json, found none", "--force tries all combinations again")
        trained = description.trained
        return Fitted(network, History(history, trained["epoch"]), probabilities, trained["weights"], made["training"])


def rule_of(rows: Sequence[Row]) -> str:
    """The rule by which the candidates of `grid.csv` were chosen, as text."""
    return ONE_STANDARD_ERROR if KERNELS in rows[0] else ACCURATE


def tabulate(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The search as a table: one row per combination, best first, averaged over the folds.

    Args:
        rows: Those of `grid.csv`.
    """
    from cxrtool.evaluation.comparison.tables import amount

    keys = [name for name in rows[0] if name not in (*COLUMNS, "repeat", "fold")]
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    folds = len({(row["repeat"], row["fold"]) for row in rows})
    lines = []
    for index, (setting, members) in enumerate(groups.items()):
        accuracy, loss, seconds = (
            _mean(members, name) for name in ("validation_accuracy", "validation_loss", "seconds")
        )
        chosen = sum(row["chosen"] == "yes" for row in members)
        failed = sum(bool(row["reason"]) for row in members)
        parameters = next((f"{int(row['parameters']):,}" for row in members if row["parameters"]), "")
        macs = next((amount(float(row["macs"])) for row in members if row["macs"]), "")
        cells = [
            *setting,
            "" if accuracy is None else f"{accuracy:.3f}",
            "" if loss is None else f"{loss:.3f}",
            parameters,
            macs,
            "" if seconds is None else f"{seconds:.1f}",
            f"{chosen} of {folds}" + (f" ({failed} failed)" if failed else ""),
        ]
        rank = (-1.0 if accuracy is None else accuracy, -(loss or 0.0), -index)
        lines.append((rank, cells))
    lines.sort(reverse=True)
    return [*keys, "val. accuracy", "val. loss", "parameters", "MACs", "seconds", "chosen in"], [
        cells for _, cells in lines
    ]


def _mean(rows: Sequence[Row], name: str) -> float | None:
    known = [float(row[name]) for row in rows if row[name]]
    return sum(known) / len(known) if known else None


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _read_score(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = load_json(folder / SCORE)
    return content


def _drop_weights(candidates: Sequence[Candidate], keep: Sequence[Candidate]) -> None:
    """Delete the weights of all other candidates: a search may try hundreds of networks."""
    kept = {candidate.index for candidate in keep}
    for candidate in candidates:
        if candidate.index not in kept:
            # Its folder stays whole: weights that are not listed are not missing.
            with also_in(candidate.path):
                forget(candidate.path, MODEL_WEIGHTS)
            (candidate.path / MODEL_WEIGHTS).unlink(missing_ok=True)


def _remove_others(parent: Path, keep: set[Path]) -> None:
    """Remove the candidates of earlier grids, and of folds of earlier splits."""
    if not parent.is_dir():
        return
    for fold in list(parent.iterdir()):
        for path in list(fold.iterdir()) if fold.is_dir() else []:
            if path not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        if not any(path.parent == fold for path in keep):
            shutil.rmtree(fold, ignore_errors=True)
