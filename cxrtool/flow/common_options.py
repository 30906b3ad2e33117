"""Options that several commands declare with the same help text."""

from __future__ import annotations

from typing import Any

from cxrtool.options import argument, option


def manifest(**more: Any) -> Any:
    """The manifest that most commands read; keywords are those of `Declaration`."""
    return argument("A manifest, a step's folder, or - for standard input.", metavar="MANIFEST", **more)


def images(**more: Any) -> Any:
    """The images that a command processes, raw or prepared; keywords are those of `Declaration`."""
    return argument(
        "Images, folders, a manifest, or - for standard input: a manifest, or a list of paths as of `find`.",
        metavar="INPUT...",
        effect=False,
        **more,
    )


def partial() -> Any:
    """Whether incomplete runs are accepted."""
    return option("Use a run although some folds are missing.", False)


def positive() -> Any:
    """The class of which sensitivity and operating points are computed."""
    return option("The positive class.", None, metavar="CLASS", shown="")


def structure() -> Any:
    """The structures of a reference."""
    return option(
        "The structures of --reference, separated by commas: columns of the table; of a folder its subfolders, or the "
        "endings of names as in ID_NAME.png.",
        None,
        metavar="NAMES",
        shown="the only one",
    )


def max_pixels() -> Any:
    """The limit on the size of an image."""
    return option("Refuse larger images before decoding.", None, minimum=1, shown="100 million")


def only(*, effect: bool = False) -> Any:
    """Some folds of a run, for job arrays; `effect` where the result lacks the other folds, also in the end."""
    return option("Process only these folds, e.g. r0f3,r0f4.", None, shown="", effect=effect)


def jobs(what: str = "Folds") -> Any:
    """Trainings side by side."""
    return option(
        f"{what} that are trained side by side on one device; each has --threads threads of its own.",
        1,
        minimum=1,
        effect=False,
    )


def save_every() -> Any:
    """How often a checkpoint is saved."""
    return option("Seconds between two checkpoints.", 30.0, minimum=0, effect=False)


def calibrated() -> Any:
    """Temperature scaling before an evaluation."""
    return option("Apply temperature scaling, fitted on each run's validation rows.", False)


def sensitivity() -> Any:
    """The operating point."""
    return option(
        "Threshold of --positive with this sensitivity, e.g. 0.95, on each run's validation rows.",
        None,
        metavar="SHARE",
        shown="",
    )


def prevalence() -> Any:
    """The prevalence for predictive values and net benefit."""
    return option(
        "PPV, NPV and net benefit at these prevalences of --positive, e.g. 0.01,0.1.", None, metavar="SHARES", shown=""
    )


def abstain() -> Any:
    """Selective accuracy."""
    return option("Accuracy without the least confident predictions.", False)
