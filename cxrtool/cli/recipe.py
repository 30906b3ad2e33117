"""`cxrtool recipe`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from cxrtool.cli import options


def recipe(
    ctx: typer.Context,
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="The system; without it, those that there are.", show_default=False),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VARIABLE=VALUE...",
            help="Values in the place of the recipe's own, such as DATA=images EPOCHS=4.",
            show_default=False,
        ),
    ] = None,
    style: Annotated[str, typer.Option("--format", help="make, sh, or slurm.")] = "make",
    estimate: Annotated[
        bool,
        typer.Option("--estimate", help="Say instead how much there is to do, and about how long it takes here."),
    ] = False,
    threads: options.Threads = None,
    device: options.Device = "auto",
    quiet: options.Quiet = False,
) -> None:
    """Print a published system's whole chain of commands.

    As a Makefile, a shell script, or a script that submits itself to SLURM; without a name it lists the systems. The
    variables at the top can be set when the script is run, or here.

    Example: cxrtool recipe makris > makris.mk && make -f makris.mk DATA=images
    """
    from cxrtool.cli.console import print_table
    from cxrtool.commands import recipe as step
    from cxrtool.commands.recipe.estimate import estimate as measure

    settings = options.settings(ctx)
    wish = step.RecipeOptions(name, tuple(values or ()), style)
    if name is None:
        print_table(*step.listing())
    elif estimate:
        found = measure(wish, settings)
        total, worth = found.sentences()
        print_table(*found.table(), title=total)
        sys.stdout.write(worth + "\n")
    else:
        sys.stdout.write(step.recipe(wish, settings))
