"""`cxrtool fit`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from cxrtool.cli import options
from cxrtool.training.image_to_image_presets import DEFAULTS


def _option(flag: str, text: str, shown: str | None = None) -> Any:
    """An option whose value the network's preset may set."""
    name = flag.removeprefix("--").replace("-", "_")
    default = shown if shown is not None else f"the network's preset, else {DEFAULTS[name]}"
    return typer.Option(flag, help=f"{text}  [default: {default}]", show_default=False)


Integer: TypeAlias = int | None
Number: TypeAlias = float | None
Text: TypeAlias = str | None


def fit(
    ctx: typer.Context,
    kind: Annotated[str, typer.Argument(help="lungs, ribs or generators.", metavar="KIND")],
    manifest: options.ManifestFile,
    out: options.Out = None,
    splits: Annotated[Path | None, typer.Option("--splits", help="Fit one network for each fold of this file that "
                                                "`cxrtool split` wrote.", show_default=False)] = None,
    also: Annotated[Path | None, typer.Option("--also", metavar="MANIFEST", show_default=False, help="Further images "
                                              "that are trained on always, and never validated or tested on.")] = None,
    network: Annotated[Text, _option("--network", "lungs: unet, unet-imlab or unet-eduardomineo; ribs: autoencoder.",
                                     "unet, autoencoder")] = None,
    target_column: Annotated[Text, _option("--target-column", "The column that names the mask, or the picture without "
                                           "ribs.", "mask, ribless")] = None,
    validation: Annotated[float, typer.Option("--validation", min=0, max=1, help="Share of the patients to choose the "
                                              "epoch by, without --splits.")] = 0.1,
    balance: Annotated[Text, typer.Option("--balance", metavar="COLUMN", show_default=False, help="Draw as many "
                                          "training images from each value of this column.")] = None,
    size: Annotated[Integer, _option("--size", "Side of the input in pixels.", "the network's own")] = None,
    loss: Annotated[Text, _option("--loss", "lungs: bce+dice, bce or dice; ribs: ms-ssim+mse or mse.",
                                  "the network's preset")] = None,
    augment: Annotated[Text, _option("--augment", "Any of rotate shift shear zoom stretch pad crop flip brightness "
                                     "contrast blur noise p, as name=reach; or none.")] = None,
    exposure: Annotated[Text, _option("--exposure", "Changes of dose, window, sharpness and overlays: none or "
                                      "strong.")] = None,
    copies: Annotated[Integer, _option("--copies", "How often each image comes in an epoch, each time changed in "
                                       "another way.")] = None,
    dilate: Annotated[Integer, _option("--dilate", "Side of the square by which masks are widened.")] = None,
    epochs: Annotated[Integer, _option("--epochs", "Passes over the training images, at most.")] = None,
    batch_size: Annotated[Integer, _option("--batch-size", "Images a step.")] = None,
    opt: Annotated[Text, _option("--opt", "sgd, adam, adamw, adadelta or rmsprop.")] = None,
    lr: Annotated[Number, _option("--lr", "Learning rate.")] = None,
    weight_decay: Annotated[Number, _option("--weight-decay", "L2 penalty.")] = None,
    sched: Annotated[Text, _option("--sched", "constant, step, cosine or plateau.")] = None,
    decay_epochs: Annotated[Integer, _option("--decay-epochs", "Between decays of step; patience of plateau.")] = None,
    decay_rate: Annotated[Number, _option("--decay-rate", "Factor of a decay.")] = None,
    warmup_epochs: Annotated[Integer, _option("--warmup-epochs", "Epochs in which the rate rises to --lr.")] = None,
    min_lr: Annotated[Number, _option("--min-lr", "The rate never falls below it.")] = None,
    average: Annotated[Number, _option("--average", "Keep a running average of the weights that holds this share at "
                                       "each step; 0 keeps the weights.")] = None,
    patience: Annotated[Integer, _option("--patience", "Stop after so many epochs without a better validation loss; "
                                         "0 never stops.")] = None,
    checkpoint: Annotated[Text, _option("--checkpoint", "Epoch to keep: best-loss (on validation) or last.")] = None,
    class_loss: Annotated[Text, _option("--class-loss", "Generators: the class term of each, over the images of its "
                                        "own class or of all.", "own")] = None,
    class_loss_weight: Annotated[Text, _option("--class-loss-weight", "Generators: what that term counts; of several, "
                                               "as 0.1,0.05, or of 13, as sweep, each fold keeps the one that is best "
                                               "on its validation images.", "0.05")] = None,
    perceptual: Annotated[Text, _option("--perceptual", "Generators: VGG16 for the perceptual term: imagenet, a file, "
                                        "or none.", "imagenet")] = None,
    weights: Annotated[Text, _option("--weights", "Generators: of their classifier: imagenet, none, or a file.",
                                     "imagenet")] = None,
    classifier_lr: Annotated[Number, _option("--classifier-lr", "Generators: learning rate of their classifier, whose "
                                             "schedule --sched and what goes with it are.", "0.001")] = None,
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
    style: options.Format = "table",
) -> None:  # fmt: skip
    """Fit a lung network, a rib network, or class-inherent generators.

    Writes a part that `segment --lungs` or `enhance --ribs` takes; with --splits a run of one part for each fold, and
    the Dice of every test image. MANIFEST may be a folder that `cxrtool phantom` drew. The kind generators is fitted to
    the labels in each fold (FuCiTNet), for `transform`.

    Example: cxrtool fit lungs prepared --splits splits.csv -o lungs
    """
    from cxrtool.cli.console import check_format, print_table
    from cxrtool.commands import fit as step
    from cxrtool.commands.fit.options import FitOptions

    check_format(style)
    found = step.fit(options.collect(ctx, FitOptions), options.settings(ctx))
    if found:
        header, rows, title = found
        print_table(header, rows, style, title)
