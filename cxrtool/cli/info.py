"""`cxrtool info`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cxrtool.cli import options

if TYPE_CHECKING:
    from cxrtool.commands.info.describe import Description


def info(
    ctx: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="A manifest, a folder, a run, a model, a table or an image.", metavar="PATH")
    ],
    splits: Annotated[
        Path | None,
        typer.Option("--splits", help="Count by its subsets.", show_default="splits.csv beside the manifest"),
    ] = None,
    table1: Annotated[bool, typer.Option("--table1", help="Table 1: who is in each subset, or in each class.")] = False,
    style: options.Format = "table",
    root: options.Root = None,
    quiet: options.Quiet = False,
) -> None:
    """Say what a manifest, model, run or image is.

    What it holds, how it was made, what failed on the way, and what looks wrong. Table 1 has age and sex by patient
    and the rest by image; SMD is the largest standardised difference between two columns.

    Example: cxrtool info prepared --table1 --format md
    """
    from cxrtool.cli.console import check_format
    from cxrtool.commands import info as step

    check_format(style)
    settings = options.settings(ctx)
    description = step.info(options.collect(ctx, step.InfoOptions), settings)
    sys.stdout.write(_text(description, style))
    for text in description.warnings:
        settings.report.warn(text)
    if description.next and not table1:
        settings.report.say(f"next: {description.next}")


def _text(description: Description, style: str) -> str:
    from cxrtool.cli.console import render

    if style == "json":
        records = [[dict(zip(columns, row, strict=True)) for row in rows] for _, columns, rows in description.tables]
        content = {"kind": description.kind, "path": description.path, "facts": description.facts, "tables": records}
        return json.dumps(content | {"warnings": description.warnings}, indent=1, ensure_ascii=False) + "\n"
    tables = [render(columns, rows, style, title) for title, columns, rows in description.tables]
    facts = [[name, value] for name, value in description.facts.items()]
    if style != "table":
        return "\n\n".join(([render(["what", "value"], facts, style)] if facts else []) + tables) + "\n"
    width = max((len(name) for name in description.facts), default=0)
    lines = [f"  {name.ljust(width)}  {value}" for name, value in facts]
    return "\n\n".join(["\n".join([f"{description.path}: {description.kind}", *lines]), *tables]) + "\n"
