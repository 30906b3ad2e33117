"""Run the whole pipeline on the phantoms of cxrtool.

Prepares synthetic radiographs, selects three classes of equal size, splits them by patient, trains the network of
COVID-XNet on three folds at 64 pixels, audits the data set, evaluates by class and severity, and writes a report:
about two minutes on two processors. Each command is shown as you would type it.

Example: cxrtool demo -o cxrtool-demo
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import cxrtool
from cxrtool.errors import InputError, OutputError
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, option

SAMPLES = "sample_data/phantoms"


def find_samples() -> Path:
    """The folder of phantoms: inside the installed package, or beside it in a checkout.

    Raises:
        InputError: It is in neither place.
    """
    package = Path(cxrtool.__file__).parent
    for place in (package / SAMPLES, package.parent / SAMPLES):
        if (place / "metadata.csv").is_file():
            return place
    raise InputError(f"expected the phantoms in {package / SAMPLES}, found none", "install cxrtool again")


CHAIN = (
    "prepare {samples}/metadata.csv --size 128 -o {out}/prepared",
    "select {out}/prepared --relabel viral,bacterial=pathological --per-class 58 -o {out}/chosen",
    "split {out}/chosen --folds 3 --validation 0.15 --stratify label,severity -o {out}/splits.csv",
    "train {out}/chosen --splits {out}/splits.csv --preset covid-xnet --size 64 --batch-size 16 --epochs {epochs} "
    "--augment rotate=10,shift=0.05,zoom=0.1,flip=0.5 --checkpoint last --replace -o {out}/run",
    "audit {out}/chosen --run {out}/run --images 30 -o {out}/audit",
    "evaluate {out}/run --by severity,source --positive covid -o {out}/evaluation",
    "report {out}/run --by severity,source --positive covid -o {out}/report.html",
)
"""The command lines, in order."""


@dataclass(frozen=True)
class DemoOptions(Options):
    """The options of `demo`."""

    SHARED: ClassVar[tuple[str, ...]] = ("quiet",)

    out: Path = option("Where to write; exactly there.", Path("cxrtool-demo"), flags=("--out", "-o"))
    epochs: int = option("Passes over the training images.", 120, minimum=1)


def run(options: DemoOptions, settings: Settings) -> int:
    """Run one command after the other; return the exit code of the one that failed."""
    started, out, write = time.monotonic(), options.out, settings.output.write
    if read_run_file(out) is not None or (out.is_dir() and any(out.iterdir()) and not (out / "prepared").is_dir()):
        raise OutputError(
            f"-o {out}: expected a new folder or one of an earlier demo, found another one", "choose another -o"
        )
    paths = {"samples": find_samples(), "out": out, "epochs": options.epochs}
    for line in CHAIN:
        if not settings.quiet:
            write(f"\n$ cxrtool {line.format(**paths)}\n")
        # Split before the paths are filled in: the name of a folder may contain a space.
        args = [part.format(**paths) for part in line.split()] + (["--quiet"] if settings.quiet else [])
        if code := settings.call(args):
            return code
    if not settings.quiet:
        shown = "".join(f"  {path}\n" for path in sorted((out / "evaluation").rglob("*.png")))
        write(
            f"\nDone in {time.monotonic() - started:.0f} s. The radiographs are synthetic, so the results mean nothing "
            f"for patients. The report: {out / 'report.html'}; the audit: {out / 'audit' / 'audit.html'}\n"
            f"Figures:\n{shown}"
        )
    return 0
