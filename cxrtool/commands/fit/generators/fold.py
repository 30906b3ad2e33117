"""Fit the generators of one fold: the folder of a part, with the predictions of FuCiTNet alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cxrtool.commands.fit.generators.effects import COLUMNS, EFFECTS, effect_rows
from cxrtool.commands.fit.generators.options import GeneratorOptions
from cxrtool.data.file_names import CURVES, FITTED_ON, HISTORY, PREDICTIONS
from cxrtool.data.files import atomic_write
from cxrtool.data.tables.manifest import write_table
from cxrtool.data.tables.predictions import write_predictions
from cxrtool.flow.assignment import Assignment
from cxrtool.flow.chain import copy_parts, radiograph_of
from cxrtool.flow.fold_training import FITTED_COLUMNS, FoldTrainer, Task, describe_epoch
from cxrtool.flow.folder import Build, without_paths
from cxrtool.flow.jobs import turn, warning_of
from cxrtool.flow.settings import Settings
from cxrtool.flow.signals import StopRequest

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.training.class_inherent_fold import FittedGenerators, GeneratorDesign
    from cxrtool.training.fitting import Fitted
    from cxrtool.training.store import Store


PER_CLASS = 4
"""Images of each class in the figure."""

SIDE = 1.45
"""Inches per image."""


@dataclass(frozen=True)
class Example:
    """One image of the figure.

    Attributes:
        original: Grey values (S, S) in [0, 1].
        versions: The output of each generator (K, S, S, 3) in [0, 1].
        before: The classifier's probability of each generator's class on the image (K,).
        after: The same on the output of that generator (K,).
    """

    name: str
    label: str
    original: np.ndarray
    versions: np.ndarray
    before: np.ndarray
    after: np.ndarray


def choose(indices: Sequence[int], labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """A few indices of each class, evenly spaced.

    >>> choose([3, 5, 7, 9, 11, 13], ["a", "b", "a", "a", "a", "a"], ["a", "b"])
    [3, 7, 9, 11, 5]
    """
    chosen = []
    for name in classes:
        mine = [index for index, label in zip(indices, labels, strict=True) if label == name]
        count = min(PER_CLASS, len(mine))
        chosen += [mine[k * len(mine) // count] for k in range(count)]
    return chosen


def draw_transformations(path: Path, examples: Sequence[Example], classes: Sequence[str], title: str) -> None:
    """Draw a row per image: the original, the output of each generator, and each difference in grey levels of 256.

    An output has three channels, and where they differ it is coloured; a difference is that of their mean. All
    differences have one scale, which ends at the 99.9th percentile.
    """
    import numpy as np

    from cxrtool.imaging.canvas import picture, shorten

    columns = 1 + 2 * len(classes)
    rows = max(1, len(examples))
    with picture(path, SIDE * columns + 1.1, (SIDE + 0.22) * rows + 0.9) as figure:
        figure.suptitle(title, fontsize=10)
        if not examples:
            figure.text(0.5, 0.5, "no image to show", ha="center")
            return
        changes = [255 * (example.versions.mean(-1) - example.original) for example in examples]
        reach = max(1.0, float(np.quantile(np.abs(np.stack(changes)), 0.999)))
        cells = figure.subplots(rows, columns, squeeze=False)
        heads = [
            "original",
            *(f"made by {shorten(name, 16)}" for name in classes),
            *(f"change by {shorten(name, 14)}" for name in classes),
        ]
        for row, (axes, example, change) in enumerate(zip(cells, examples, changes, strict=True)):
            for column, cell in enumerate(axes):
                cell.set(xticks=[], yticks=[])
                cell.spines[:].set_visible(False)
                if not row:
                    cell.set_title(heads[column], fontsize=8, loc="center")
            axes[0].imshow(example.original, cmap="gray", vmin=0, vmax=1)
            axes[0].set_xlabel(shorten(example.name, 22), fontsize=7)
            axes[0].set_ylabel(shorten(example.label, 18), fontsize=8)
            for k, name in enumerate(classes):
                axes[1 + k].imshow(example.versions[k])
                caption = f"P({shorten(name, 10)}) {example.before[k]:.2f} → {example.after[k]:.2f}"
                axes[1 + k].set_xlabel(caption, fontsize=7)
                last = axes[1 + len(classes) + k]
                drawn = last.imshow(change[k], cmap="RdBu_r", vmin=-reach, vmax=reach)
                last.set_xlabel(f"mean {change[k].mean():+.1f}", fontsize=7)
        bar = figure.colorbar(drawn, ax=cells, shrink=min(1.0, 3 / rows), pad=0.01, aspect=30)
        bar.set_label("grey levels of 256; red: brighter than before", fontsize=8)
        bar.ax.tick_params(labelsize=7)


KIND, NETWORK = "generators", "fucitnet"
CLASSIFIER, TRIALS, PICTURE = "classifier.safetensors", "sweep.csv", "transformations.png"

TERM_TITLES = {
    "mse": "squared error of pixels",
    "perceptual": "squared error of VGG16's features",
    "tv": "total variation",
    "class": "class term",
    "total": "weighted sum of a generator's terms",
}
"""Titles of the terms of a generator's loss in the curves."""


def make_design(options: GeneratorOptions, classes: Sequence[str], settings: Settings, seed: int) -> GeneratorDesign:
    """The design that the resolved options describe.

    Raises:
        UsageError: An augmentation is wrong.
    """
    from cxrtool.training.augment import parse
    from cxrtool.training.class_inherent_fold import GeneratorDesign

    return GeneratorDesign(
        tuple(classes),
        options.size,
        options.weights,
        options.perceptual,
        options.class_loss,
        tuple(map(float, options.class_loss_weight.split(","))),
        options.classifier_lr,
        options.fitting(),
        parse(options.augment),
        seed,
        settings.threads,
        settings.device,
        settings.precision,
    )


def check_design(options: GeneratorOptions, classes: Sequence[str], settings: Settings) -> None:
    """Check every option, and load all weights, before the first image is decoded.

    Raises:
        InputError: Weights cannot be downloaded or read, or do not fit.
        UsageError: A name or a number is wrong, or there is no such device.
    """
    from cxrtool.models import perceptual
    from cxrtool.training.class_inherent_fold import NONE, build_generator_training
    from cxrtool.training.device import choose_device, choose_precision, local_randomness

    design = make_design(options, classes, settings, 0)
    choose_precision(settings.precision, choose_device(settings.device))
    with local_randomness(0, settings.threads):
        build_generator_training(design)
    if design.perceptual != NONE:
        perceptual.load(design.perceptual)


class GeneratorsTrainer(FoldTrainer):
    """Fits the generators of folds, all with the same options.

    Each fold's folder is a part of the kind `generators`, with the classifier beside it. Its `predictions.csv`
    are those of FuCiTNet alone: for every class the largest logit over all versions, through softmax.
    """

    def __init__(self, options: GeneratorOptions, task: Task) -> None:
        from cxrtool.models.parts import networks

        self.form = replace(networks(KIND)[NETWORK].form, size=options.size)
        self.generator_options, self.task, self.classes = options, task, task.classes
        self.shape = self.form.size, self.form.fit

    def generator_design(self, assignment: Assignment) -> GeneratorDesign:
        """The design of a fold, which has its own seed, so that it can be fitted alone."""
        settings = self.task.settings
        return make_design(self.generator_options, self.classes, settings, assignment.seed(settings.seed))

    def fit(
        self,
        assignment: Assignment,
        store: Store,
        to_predict: Sequence[str],
        state: Path,
        request: StopRequest,
        name: str = "",
    ) -> FittedGenerators:
        """Fit one fold; arguments as in `FoldTrainer.fit`."""
        import numpy as np

        from cxrtool.training.class_inherent_fold import fit_generator_fold
        from cxrtool.training.job import COLUMNS as SHOWN

        task, subsets = self.task, assignment.subsets
        report, design = task.settings.report, self.generator_design(assignment)
        name = name or assignment.name
        weights = design.class_loss_weights
        with (
            turn(task.settings, task.beside, request),
            report.progress(name, design.recipe.epochs * len(weights)) as advance,
        ):

            def epoch_done(weight: float, row: dict[str, float | None]) -> None:
                advance(1)
                tried = f"  class loss x {weight:g}" if len(weights) > 1 else ""
                report.note(f"{name}{tried}  {describe_epoch({key: row[key] for key in SHOWN})}")

            fitted = fit_generator_fold(
                design,
                store,
                [radiograph_of(row) for row in task.manifest.rows],
                self.labels(),
                np.array(subsets["train"], np.int64),
                np.array(subsets["validation"], np.int64),
                np.array([i for subset in to_predict for i in subsets[subset]], np.int64),
                state,
                shown=self._shown(assignment),
                save_every=task.save_every,
                epoch_done=epoch_done,
                stop=request.error,
                warn=warning_of(name, task.beside, report),
            )
        request.raise_if_stopped()
        return fitted

    def write(self, build: Build, assignment: Assignment, store: Store, fitted: Fitted) -> None:
        """Write the part, its classifier, and their predictions for the validation and test images."""
        import numpy as np
        from safetensors.torch import save

        from cxrtool.imaging import plausibility
        from cxrtool.models.parts import save_part
        from cxrtool.training.curves import draw_panels, loss_and, write_history

        found, path = cast("FittedGenerators", fitted), build.path
        chain = self.task.chain_of(assignment)
        seen = [(i, name) for name in ("train", "validation") for i in assignment.subsets[name]]
        shown = (store.images[i] for i in assignment.subsets["train"])
        usual = plausibility.fit(np.stack([plausibility.thumbnail(picture) for picture in shown]))
        description = {**self._describe(assignment, found), "chain": without_paths(chain), "usual": usual}
        save_part(
            path,
            KIND,
            NETWORK,
            found.module.generators,
            self.form,
            description,
            built_with={"classes": self.classes},
        )
        state = {key: value.contiguous() for key, value in found.module.classifier.state_dict().items()}
        atomic_write(path / CLASSIFIER, save(state))
        copy_parts(chain, path)
        write_table(path / FITTED_ON, FITTED_COLUMNS, [self._seen_row(i, name, assignment, store) for i, name in seen])
        if len(found.trials) > 1:
            self._write_trials(path / TRIALS, found)
        write_history(path / HISTORY, found.history.rows)
        title = f"generators of {', '.join(self.classes)}; {assignment.name}"
        draw_panels(
            path / CURVES,
            found.history,
            title,
            loss_and("accuracy", "loss of the classifier", self._terms(found)),
        )
        predicted = [(i, name) for name in ("validation", "test") for i in assignment.subsets[name]]
        rows = effect_rows(self.task.manifest, assignment, predicted, found.predictions, self.classes)
        write_table(path / EFFECTS, COLUMNS, rows)
        self._draw(path / PICTURE, assignment, store, found, [i for i, _ in predicted])
        write_predictions(path / PREDICTIONS, self._predictions(assignment, store, fitted, usual))

    def _describe(self, assignment: Assignment, fitted: FittedGenerators) -> dict[str, Any]:
        from cxrtool.models.architecture import Architecture
        from cxrtool.training.class_inherent_fold import CLASSIFIER as NAME

        values = {
            name: value for name, value in self.generator_options.identity().items() if name not in ("kind", "network")
        }
        trained = {
            **values,
            "class_loss_weight": fitted.chosen,
            "seed": self.task.settings.seed,
            "epoch": fitted.history.kept,
            "images": len(assignment.subsets["train"]),
        }
        architecture = Architecture(NAME, len(self.classes), size=self.generator_options.size)
        return {
            "trained": trained,
            "classifier": {"architecture": architecture.to_json(), "weights": fitted.weights_from},
        }

    def _terms(self, fitted: FittedGenerators) -> dict[str, dict[str, str]]:
        from cxrtool.training.class_inherent import TERMS, term_of

        columns = {TERM_TITLES[term]: {name: f"train_{term_of(term, name)}" for name in self.classes} for term in TERMS}
        there = fitted.history.rows[0]
        return {what: lines for what, lines in columns.items() if all(name in there for name in lines.values())}

    def _write_trials(self, path: Path, fitted: FittedGenerators) -> None:
        rows = [
            {
                "class_loss_weight": repr(trial.weight),
                "kept_epoch": str(trial.epoch),
                "validation_accuracy": "" if trial.accuracy is None else f"{trial.accuracy:.6f}",
                "validation_loss": "" if trial.loss is None else f"{trial.loss:.6f}",
                "chosen": "yes" if trial.weight == fitted.chosen else "",
            }
            for trial in fitted.trials
        ]
        write_table(path, list(rows[0]), rows)

    def _shown(self, assignment: Assignment) -> list[int]:
        indices = assignment.subsets["test"] or assignment.subsets["validation"]
        return choose(indices, [self.task.manifest.rows[i]["label"] for i in indices], self.classes)

    def _draw(
        self, path: Path, assignment: Assignment, store: Store, fitted: FittedGenerators, predicted: list[int]
    ) -> None:
        import numpy as np

        predictions, own = fitted.predictions, np.arange(len(self.classes))
        examples = []
        for index in self._shown(assignment):
            row, n = self.task.manifest.rows[index], predicted.index(index)
            original = store.images[index].astype(np.float32) / np.float32(store.scale)
            pictures, before, after = predictions.pictures[index], predictions.before[n], predictions.after[own, n, own]
            examples.append(Example(row["image_id"], row["label"], original, pictures, before, after))
        subset = "test" if assignment.subsets["test"] else "validation"
        title = f"{subset} images of {assignment.name}; P is the classifier's probability of the generator's class"
        draw_transformations(path, examples, self.classes, title)
