"""Show on drawn radiographs why an accuracy is not enough.

In a drawn hospital, COVID images have another border. A network learns there; the audit names what it looked at; a
second hospital shows what it is worth; and images of several hospitals, cropped to the lungs, are the remedy. All of it
is on one page, demo.html, with the commands as you would type them. It takes about a minute on two processors.

Example: cxrtool demo -o cxrtool-demo
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.demo.story import Story
from cxrtool.errors import TakenError
from cxrtool.flow.folder import read_run_file
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, option

PAGE = "demo.html"


@dataclass(frozen=True)
class DemoOptions(Options):
    """The options of `demo`."""

    SHARED: ClassVar[tuple[str, ...]] = ("seed", "quiet")

    out: Path = option("Where to write; exactly there.", Path("cxrtool-demo"), flags=("--out", "-o"))


@dataclass(frozen=True)
class Step:
    """A command of the demonstration.

    Attributes:
        title: What it does, in a few words.
        line: Its command line with the fields `out`, `seed` and those of `Sizes`, without the name of the program.
        found: The figure of the `Story` that it adds, as the name of an attribute; empty for none.
    """

    title: str
    line: str
    found: str = ""


@dataclass(frozen=True)
class Sizes:
    """How much is drawn, and for how many epochs networks are trained."""

    first: int = 300
    second: int = 300
    several: int = 640
    epochs: int = 8
    longer: int = 18


SIZES = Sizes()

DRAWN = "--size 96 --classes normal,covid --children 0 --truth none"
"""Adults of two classes."""

NETWORK = "--model covid-xnet --size 48 --lr 0.002 --checkpoint last --seed {seed} --threads 1 --replace"
"""The network of COVID-XNet on small images. One thread gives the same figures on every machine."""

STEPS = (
    Step(
        "hospital A: draw images",
        f"phantom --count {{first}} {DRAWN} --sources county --plant border --plant-strength 0.95 --seed {{seed}} "
        "-o {out}/hospital-a",
    ),
    Step(
        "train a network",
        f"train {{out}}/hospital-a/metadata.csv --holdout 60/10/30 {NETWORK} --epochs {{epochs}} --batch-size 16 "
        "-o {out}/network",
    ),
    Step(
        "audit it",
        "audit {out}/network/prepared --run {out}/network --probes border --permutations 100 --images 0 --threads 1 "
        "-o {out}/audit",
        "audit",
    ),
    Step("test it on new patients of hospital A", "evaluate {out}/network --positive covid -o {out}/tested-a", "home"),
    Step(
        "hospital B: draw images",
        f"phantom --count {{second}} {DRAWN} --sources university --seed 1{{seed}} -o {{out}}/hospital-b",
    ),
    Step(
        "test the same network on hospital B",
        "evaluate {out}/network {out}/hospital-b/metadata.csv --positive covid --threads 1 -o {out}/tested-b",
        "away",
    ),
    Step(
        "remedy: draw images of several hospitals",
        f"phantom --count {{several}} {DRAWN} --sources county,lakeside,harbour,archive --seed 2{{seed}} "
        "-o {out}/several",
    ),
    Step("read them", "prepare {out}/several/metadata.csv -o {out}/several-prepared"),
    Step("find the lungs and crop to them", "segment {out}/several-prepared --crop --threads 1 -o {out}/lungs"),
    Step(
        "train a network on the lungs",
        f"train {{out}}/lungs --holdout 90/10 {NETWORK} --epochs {{longer}} --sched cosine --warmup-epochs 3 "
        "--weight-decay 0.05 --augment rotate=5,shift=0.05,zoom=0.1,flip=0.5 -o {out}/network-lungs",
    ),
    Step(
        "test it on hospital B",
        "evaluate {out}/network-lungs {out}/hospital-b/metadata.csv --positive covid --threads 1 -o {out}/remedy-b",
        "remedy",
    ),
)
"""The commands, in order."""

NEXT = (
    "cxrtool train FOLDER --folds 5 --model resnet10t -o run",
    "cxrtool audit run/prepared --run run -o audit",
    "cxrtool evaluate run OTHER-HOSPITAL -o tested",
)
"""The commands to go on with; FOLDER has a subfolder for each class, as OTHER-HOSPITAL has."""


def run(options: DemoOptions, settings: Settings) -> int:
    """Run one command after the other; return the exit code of the one that failed."""
    started, out = time.monotonic(), options.out
    if read_run_file(out) is not None or (out.is_dir() and any(out.iterdir()) and not (out / "hospital-a").is_dir()):
        raise TakenError(
            f"-o {out}: expected a new folder or one of an earlier demo, found another one", "choose another -o"
        )
    story, lines = Story(out), []
    for number, step in enumerate(STEPS, start=1):
        # Split before the paths are filled in: the name of a folder may contain a space.
        fields = {"out": out, "seed": settings.seed, **vars(SIZES)}
        line = [part.format(**fields) for part in step.line.split()]
        lines.append(line)
        with settings.report.stage(f"[{number:2d}/{len(STEPS)}] {step.title}") as stage:
            code = settings.call(line, report=stage.report)
            stage.found = "failed" if code else str(getattr(story, step.found)) if step.found else ""
        if code:
            return code
    page = out / PAGE
    story.write_page(page, lines, NEXT)
    end = [
        *story.lines(),
        f"All of it on one page: {page} ({time.monotonic() - started:.0f} s)",
        "Go on with your own images:",
        *(f"  {line}" for line in NEXT),
    ]
    settings.output.write("\n".join(["", *end]) + "\n")
    return 0
