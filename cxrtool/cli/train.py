"""`cxrtool train`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from cxrtool.cli import options
from cxrtool.training.presets import DEFAULTS, PRESETS

if TYPE_CHECKING:
    from cxrtool.data.tables.manifest import Row
    from cxrtool.flow.settings import Settings


def _option(flag: str, text: str, shown: str | None = None) -> Any:
    """An option whose default stands in `DEFAULTS`, because a preset may come between."""
    name = flag.split("/")[0].removeprefix("--").replace("-", "_")
    default = shown if shown is not None else DEFAULTS[name]
    return typer.Option(flag, help=f"{text}  [default: {default}]", show_default=False)


Integer: TypeAlias = int | None
Number: TypeAlias = float | None
Text: TypeAlias = str | None


def train(
    ctx: typer.Context,
    manifest: options.ManifestFile,
    splits: Annotated[Path, typer.Option("--splits", help="The splits file that `cxrtool split` wrote.")],
    out: options.Out = None,
    model: Annotated[Text, _option("--model", "covid-xnet, covid-caps, pepx, or any network of timm.",
                                     "the preset's")] = None,
    preset: Annotated[Text, typer.Option("--preset", help=f"A published system: {', '.join(PRESETS)}.")] = None,
    kernels: Annotated[Text, _option("--kernels", "Of each layer of covid-xnet, as 5,5,5,3,3.", "the paper's")] = None,
    weights: Annotated[Text, _option("--weights", "imagenet, none, or a file.", "imagenet for timm's")] = None,
    freeze: Annotated[bool | None, _option("--freeze/--unfreeze", "Train the head alone.", "unfreeze")] = None,
    frozen_bn: Annotated[Text, _option("--frozen-bn", "Frozen batch normalisation: eval or batch.")] = None,
    hidden: Annotated[Integer, _option("--hidden", "Width of a new dense head; 0 keeps the network's.")] = None,
    dropout: Annotated[Number, _option("--dropout", "Dropout before the output layer.")] = None,
    size: Annotated[Integer, _option("--size", "Side of the input in pixels.", "the network's own")] = None,
    fit: Annotated[Text, _option("--fit", "How a picture becomes square: squash, pad or crop.")] = None,
    normalize: Annotated[Text, _option("--normalize", "native (as the weights were trained) or div255.")] = None,
    augment: Annotated[Text, _option("--augment", "Any of rotate shift shear zoom crop flip brightness contrast "
                                     "blur noise p, as name=reach; or none.")] = None,
    epochs: Annotated[Integer, _option("--epochs", "Passes over the training images, at most.")] = None,
    batch_size: Annotated[Integer, _option("--batch-size", "Images a step.")] = None,
    opt: Annotated[Text, _option("--opt", "sgd, adam, adamw, adadelta or rmsprop.")] = None,
    lr: Annotated[Number, _option("--lr", "Learning rate.")] = None,
    momentum: Annotated[Number, _option("--momentum", "Of sgd and rmsprop.")] = None,
    weight_decay: Annotated[Number, _option("--weight-decay", "L2 penalty.")] = None,
    opt_eps: Annotated[Number, _option("--opt-eps", "Numeric floor of adaptive optimizers.", "torch's")] = None,
    opt_rho: Annotated[Number, _option("--opt-rho", "Memory of adadelta and rmsprop.")] = None,
    sched: Annotated[Text, _option("--sched", "constant, step, cosine or plateau.")] = None,
    decay_epochs: Annotated[Integer, _option("--decay-epochs", "Between decays of step; patience of plateau.")] = None,
    decay_rate: Annotated[Number, _option("--decay-rate", "Factor of a decay.")] = None,
    warmup_epochs: Annotated[Integer, _option("--warmup-epochs", "Epochs in which the rate rises to --lr.")] = None,
    min_lr: Annotated[Number, _option("--min-lr", "The rate never falls below it.")] = None,
    patience: Annotated[Integer, _option("--patience", "Stop after so many epochs without a better validation loss; "
                                         "0 never stops.")] = None,
    checkpoint: Annotated[Text, _option("--checkpoint", "Epoch to keep: best-loss, best-accuracy (both on validation) "
                                        "or last.")] = None,
    class_weights: Annotated[Text, _option("--class-weights", "none, or balanced: n / (K n_c).")] = None,
    grid: Annotated[list[str] | None, typer.Option(
        "--grid", metavar="KEY=A,B", show_default=False, help="Values to try for an option, say lr=0.01,0.001; "
        "repeatable. Each fold keeps the combination that is best on its validation images. Where values hold commas, "
        "| parts them: 'augment=none|rotate=10,flip=0.5'.")] = None,
    budget: Annotated[int | None, typer.Option("--budget", min=1, show_default=False,
                                               help="Draw so many of the grid's combinations.")] = None,
    transform: Annotated[Path | None, typer.Option(
        "--transform", metavar="RUN", show_default=False, help="Train on what the generators of `fit generators` make "
        "of the images in each fold, without writing it.")] = None,
    only: options.Only = None,
    save_every: Annotated[float, typer.Option("--save-every", min=0, help="Seconds between two checkpoints.")] = 30.0,
    seed: options.Seed = 0,
    threads: options.Threads = None,
    workers: options.Workers = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    cache: options.Cache = None,
    root: options.Root = None,
    config: options.Config = None,
    allow_leakage: options.Leakage = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    strict: options.Strict = False,
    verify: options.Verify = False,
    quiet: options.Quiet = False,
) -> None:  # fmt: skip
    """Train a network on every fold of a split.

    Writes a run: a folder rRfF for each repeat R and fold F, with the model, its history and curves, and what it says
    of the validation and test images. Interrupted, the same command goes on and ends with the same weights.

    Example: cxrtool train prepared --splits splits.csv --preset covid-xnet -o run
    """
    from cxrtool.commands import train as step

    settings = options.settings(ctx)
    rows = step.train(options.collect(ctx, step.TrainOptions), settings)
    if rows:
        _tell_of_search(rows, settings)


def _tell_of_search(rows: Sequence[Row], settings: Settings) -> None:
    from cxrtool.cli.console import render
    from cxrtool.commands.train.grid import SHOWN, rule_of, tabulate

    columns, lines = tabulate(rows)
    settings.report.say("\n" + render(columns, lines[:SHOWN], title="Grid search, by validation images; mean of folds"))
    if len(lines) > SHOWN:
        settings.report.say(f"… and {len(lines) - SHOWN} more in {settings.out}/grid.csv")
    settings.report.say(f"Chosen in each fold: {rule_of(rows)}.")
