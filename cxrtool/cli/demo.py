"""`cxrtool demo`: the commands that a user would type, one after the other."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

import cxrtool
from cxrtool.cli import options
from cxrtool.errors import InputError

SAMPLES = "sample_data"


def find_samples() -> Path:
    """The folder of phantoms: inside the installed package, or beside it in a checkout.

    Raises:
        InputError: It is in neither place.
    """
    package = Path(cxrtool.__file__).parent
    for place in (package / SAMPLES, package.parent / SAMPLES):
        if (place / "metadata.csv").is_file():
            return place
    raise InputError(f"expected the phantoms in {package / SAMPLES}, found none", "install cxrtool anew")


def chain(samples: Path, out: Path, epochs: int) -> list[list[str]]:
    """The command lines, in order."""
    prepared, splits, run = str(out / "prepared"), str(out / "splits.csv"), str(out / "run")
    return [
        ["prepare", str(samples / "metadata.csv"), "--dataset", "csv", "--size", "256", "-o", prepared],
        ["split", prepared, "--folds", "3", "--validation", "0.15", "--stratify", "label,severity", "-o", splits],
        ["train", prepared, "--splits", splits, "--preset", "covid-xnet", "--epochs", str(epochs), "-o", run],
        ["evaluate", run, "--by", "severity,source", "--positive", "covid", "-o", str(out / "evaluation")],
        ["predict", run, str(samples / "metadata.csv"), "--allow-leakage", "--quiet", "-o", str(out / "answers.csv")],
    ]


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Where to write; exactly there.")] = Path("cxrtool-demo"),
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Passes over the training images.")] = 30,
    quiet: options.Quiet = False,
) -> None:
    """Run the whole chain on the phantoms that come with cxrtool.

    Prepares drawn radiographs, splits them by patient, trains the network of COVID-XNet on three folds and evaluates it
    per class and severity, in about a minute on two processors. Each command is shown as you would type it.

    Example: cxrtool demo -o cxrtool-demo
    """
    from cxrtool.cli.main import run

    started = time.monotonic()
    for command in chain(find_samples(), out, epochs):
        if not quiet:
            sys.stdout.write(f"\n$ cxrtool {' '.join(command)}\n")
            sys.stdout.flush()
        code = run(command + (["--quiet"] if quiet and "--quiet" not in command else []))
        if code:
            raise typer.Exit(code)
    if not quiet:
        pictures = sorted(path for path in (out / "evaluation").rglob("*.png"))
        shown = "".join(f"  {path}\n" for path in pictures)
        sys.stdout.write(
            f"\nDone in {time.monotonic() - started:.0f} s. The radiographs are drawn, so the figures mean nothing for "
            f"patients. Pictures to look at:\n{shown}"
        )
