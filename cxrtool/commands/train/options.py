"""The options of `train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.flow import common_options
from cxrtool.flow.settings import COMPUTING, READING, RUNNING
from cxrtool.options import argument, option
from cxrtool.training.options import NETWORK, TrainingOptions
from cxrtool.training.tracking import TRACKERS


@dataclass(frozen=True)
class TrainOptions(TrainingOptions):
    """The options of `train`; those of the training itself are `TrainingOptions`."""

    SHARED: ClassVar[tuple[str, ...]] = (
        "out",
        "seed",
        *COMPUTING,
        "cluster",
        "precision",
        "cache",
        "allow_leakage",
        *READING,
        "replace",
        *RUNNING,
    )

    manifest: Path = argument(
        "A manifest, a step's folder, or - for standard input. With --folds or --holdout also images: a folder with a "
        "subfolder for each class, or a table.",
        metavar="MANIFEST|IMAGES",
        effect=False,
    )
    splits: Path | None = option("The splits file that `cxrtool split` wrote.", None, shown="", effect=False)
    target: str = option(
        "The column to learn. Classes in an order are learned by cumulative logits: severity, any column with an order "
        "(grade:low/mid/high), numbers with bins (age:0,40,65).",
        "label",
        metavar="COLUMN",
        panel=NETWORK,
    )
    folds: int | None = option(
        "Instead of --splits: cross-validation with this number of folds, divided as `cxrtool split` does; images are "
        "first read as `cxrtool prepare` does. Both are kept inside the run.",
        None,
        minimum=2,
        shown="",
        effect=False,
    )
    holdout: str | None = option(
        "Instead of --splits: one division, 60/20/20 or 80/20; otherwise as --folds.",
        None,
        metavar="SHARES",
        shown="",
        effect=False,
    )
    transform: Path | None = option(
        "Train on twins, made in each fold by the generators of this run of `fit generators`; they are not saved.",
        None,
        metavar="RUN",
        shown="",
        effect=False,
    )
    only: str | None = common_options.only()
    jobs: int = common_options.jobs("Folds, and combinations of --grid,")
    save_every: float = common_options.save_every()
    track: str | None = option(
        "Also write losses, scores and learning rates of every epoch for: {choices}.",
        None,
        choices=TRACKERS,
        shown="",
        effect=False,
    )
    track_to: Path | None = option(
        "With --track: where to; each run and fold has its own folder there.",
        None,
        shown="in the run, in a folder of the tracker's name",
        effect=False,
    )
    grid: tuple[str, ...] = option(
        "Values to try for an option, such as lr=0.01,0.001; repeatable. Each fold keeps the combination that is best "
        "on its validation images. If values contain commas, separate them by |: 'augment=none|rotate=10,flip=0.5'.",
        (),
        metavar="KEY=A,B",
        shown="",
        effect=False,
    )
    budget: int | None = option(
        "Draw this number of combinations of the grid.", None, minimum=1, shown="", effect=False
    )
