"""Options that several commands declare, each in the same words everywhere."""

from __future__ import annotations

from typing import Any

from cxrtool.options import argument, option


def manifest(**more: Any) -> Any:
    """The table that most commands work on; keywords are those of `Declaration`."""
    return argument("A manifest, a step's folder, or - for standard input.", metavar="MANIFEST", **more)


def partial() -> Any:
    """Runs that are not complete."""
    return option("Use a run of which some folds are missing.", False)


def positive() -> Any:
    """The class that sensitivity and operating points are about."""
    return option("The class to find.", None, metavar="CLASS", shown="")


def max_pixels() -> Any:
    """The limit on the size of a picture."""
    return option("Refuse larger pictures before decoding.", None, minimum=1, shown="100 million")


def only(*, effect: bool = False) -> Any:
    """Some folds of a run, for job arrays; the run is the same in the end, unless it is `effect` to leave folds out."""
    return option("Do these folds alone, e.g. r0f3,r0f4.", None, shown="", effect=effect)


def save_every() -> Any:
    """How often a training can be resumed from."""
    return option("Seconds between two checkpoints.", 30.0, minimum=0, effect=False)


def calibrated() -> Any:
    """Temperature scaling before an evaluation."""
    return option("First bring each run to the temperature of its own validation rows.", False)


def sensitivity() -> Any:
    """The operating point that is asked for."""
    return option(
        "Call --positive from the threshold that keeps this, e.g. 0.95, on each run's validation rows.",
        None,
        metavar="SHARE",
        shown="",
    )


def prevalence() -> Any:
    """Where predictive values and net benefit are wanted."""
    return option(
        "PPV, NPV and net benefit where such a share is --positive, e.g. 0.01,0.1.", None, metavar="SHARES", shown=""
    )


def abstain() -> Any:
    """Selective accuracy."""
    return option("Accuracy when the least confident are left undecided.", False)
