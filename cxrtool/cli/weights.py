"""`cxrtool weights`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cxrtool.cli import options
from cxrtool.errors import UsageError

OF_PARTS = ("kind", "fitted_on", "workers", "root", "verify", "strict", "out", "force", "dry_run")
"""What of it an import of a part takes, which brings all the rest with it."""

ACTIONS: dict[str, tuple[str, ...]] = {
    "import": ("kind", "model", "classes", "size", "fit", "mean", "std", "fitted_on", "workers", "root", "verify",
               "strict", "out", "force", "dry_run"),
    "fetch": ("out", "force", "dry_run"),
    "list": ("style",),
}  # fmt: skip
"""Each action, and the options that it takes beside --quiet."""


def weights(
    ctx: typer.Context,
    action: Annotated[str, typer.Argument(help=f"{', '.join(ACTIONS)}.", metavar="ACTION")],
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="import: a .pth, .pt or .safetensors file; with --kind ribs a TensorFlow checkpoint or an .npz. "
            "fetch: networks of timm.",
            metavar="NAME...",
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option("--kind", help="ribs: a part that enhance takes, no classifier.", show_default=False)
    ] = "",
    model: Annotated[str, typer.Option("--model", help="The network it is of, by timm's name.")] = "",
    classes: Annotated[
        str, typer.Option("--classes", metavar="A,B,C", help="What its outputs mean, in their order.")
    ] = "",
    size: Annotated[
        int | None, typer.Option("--size", help="Side of the input in pixels.", show_default="the network's own")
    ] = None,
    fit: Annotated[str, typer.Option("--fit", help="How a picture becomes square: squash, pad or crop.")] = "squash",
    mean: Annotated[
        str | None,
        typer.Option("--mean", metavar="R,G,B", help="Of grey values from 0 to 1.", show_default="timm's"),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option("--std", metavar="R,G,B", help="Standard deviation, likewise.", show_default="timm's"),
    ] = None,
    fitted_on: Annotated[
        Path | None,
        typer.Option("--fitted-on", metavar="MANIFEST", help="What it was trained on.", show_default="not known"),
    ] = None,
    out: options.Out = None,
    workers: options.Workers = None,
    root: options.Root = None,
    verify: options.Verify = False,
    strict: options.Strict = False,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    style: options.Format = "table",
) -> None:
    """Take in a network from elsewhere, fetch ImageNet weights, list them.

    `import FILE` makes a model folder of a checkpoint of timm, head included, that predict and explain take as one of
    their own; no code in the file is run. `fetch NAME` brings ImageNet weights onto a machine with a network, so that
    one without finds them: into timm's cache, or with -o to a file. `list` shows what is there.

    With --kind ribs, `import` makes a part of the published weights of a rib-suppressing network (model.index beside
    model.data-00000-of-00001), for `enhance --ribs`; TensorFlow is not needed.

    Example: cxrtool weights import best.pth --model resnet50 --classes covid,normal --size 224 -o model
    """
    from cxrtool.cli.console import check_format, print_table
    from cxrtool.commands import weights as step

    options.one_of("ACTION", action, ACTIONS)
    part = kind and action == "import"
    for name, origin in options.origins(ctx).items():
        if origin == "flag" and name not in ("action", "names", "quiet", *(OF_PARTS if part else ACTIONS[action])):
            flag = "format" if name == "style" else name.replace("_", "-")
            raise UsageError(f"`weights {action}{' --kind' if part else ''}` takes no --{flag}")
    check_format(style)
    settings, names = options.settings(ctx), names or []
    if action == "list":
        if names:
            raise UsageError(f"`weights list` takes no names, found '{names[0]}'")
        print_table(step.COLUMNS, step.list_weights(settings), style)
    elif action == "fetch":
        if not names:
            raise UsageError("`weights fetch` needs the name of a network", "for instance cxrtool weights fetch vgg16")
        step.fetch(names, settings)
    elif kind:
        from cxrtool.commands.weights import part as weights_part

        if len(names) != 1:
            raise UsageError(
                "`weights import --kind` needs one file",
                "for instance cxrtool weights import checkpoint/model.index --kind ribs -o ribs",
            )
        options.one_of("--kind", kind, weights_part.KINDS)
        told = weights_part.PartImportOptions(Path(names[0]), kind, fitted_on)
        weights_part.import_part(told, settings)
    else:
        if len(names) != 1 or not model or not classes:
            raise UsageError(
                "`weights import` needs one file, --model and --classes",
                "for instance cxrtool weights import best.pth --model resnet50 --classes covid,normal -o model",
            )
        network = step.ImportOptions(Path(names[0]), model, classes, size, fit, mean, std, fitted_on)
        step.import_model(network, settings)
