"""The options that commands share: one flag, one name, one help text."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from cxrtool.errors import InputError, UsageError

if TYPE_CHECKING:
    from cxrtool.flow.settings import Settings

Options = TypeVar("Options")

ORIGINS = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT": "default", "DEFAULT_MAP": "config"}


def _read_config(ctx: typer.Context, value: Path | None) -> Path | None:
    """Take defaults from a TOML file or from an old `run.json`; flags on the command line still win."""
    if value is None:
        return None
    try:
        text = value.read_text(encoding="utf-8")
        content = json.loads(text) if value.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(f"--config {value}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--config {value}: expected TOML, or the run.json of an earlier run: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {value}: expected names and values, found a list")
    if "digest" in content and "options" in content:
        made = content.get("command")
        if made != ctx.info_name:
            raise UsageError(f"--config {value}: expected a run of `cxrtool {ctx.info_name}`, found one of `{made}`")
        content = {name: entry["value"] for name, entry in content["options"].items()} | {
            name: content[name] for name in ("seed", "threads")
        }
    known = {parameter.name for parameter in ctx.command.params}
    flat = {name.replace("-", "_"): entry for name, entry in content.items()}
    unknown = sorted(set(flat) - known)
    if unknown and value.suffix != ".json":
        raise UsageError(f"--config {value}: `{ctx.info_name}` has no option '{unknown[0].replace('_', '-')}'")
    ctx.default_map = {**(ctx.default_map or {}), **{name: flat[name] for name in flat if flat[name] is not None}}
    return value


ManifestFile = Annotated[
    Path, typer.Argument(help="A manifest, a step's folder, or - for standard input.", metavar="MANIFEST")
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Where to write; exactly there.", show_default=False)]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Everything that is drawn is drawn from it.")]
Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        help="Threads of the numeric libraries; results depend on it.",
        show_default="all processors",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Processes that read and write images.", show_default="all processors"),
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or one GPU as cuda:1.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32 or bf16.")]
Force = Annotated[bool, typer.Option("--force", help="Redo what is there already.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no messages but errors.")]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 3 when something was rejected.")]
Verify = Annotated[bool, typer.Option("--verify", help="Hash the inputs instead of trusting size and time.")]
Root = Annotated[Path | None, typer.Option("--root", help="Read images only below this folder.", show_default=False)]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        envvar="CXRTOOL_CACHE",
        help="Folder for decoded images.",
        show_default="$SLURM_TMPDIR, else $TMPDIR",
    ),
]
Leakage = Annotated[
    bool, typer.Option("--allow-leakage", help="Warn, instead of refusing, where a test image was seen in training.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=_read_config,
        is_eager=True,
        help="Defaults from a TOML file, or from an old run.json, which repeats that run.",
        show_default=False,
    ),
]
Format = Annotated[str, typer.Option("--format", help="table, md, latex, csv or json.")]
Partial = Annotated[bool, typer.Option("--partial", help="Use a run of which some folds are missing.")]
Positive = Annotated[
    str | None, typer.Option("--positive", metavar="CLASS", help="The class to find.", show_default=False)
]
MaxPixels = Annotated[
    int | None,
    typer.Option("--max-pixels", min=1, help="Refuse larger pictures before decoding.", show_default="100 million"),
]
Digits = Annotated[int, typer.Option("--digits", min=0, max=10, help="Decimals in tables.")]
Calibrated = Annotated[
    bool, typer.Option("--calibrated", help="First bring each run to the temperature of its own validation rows.")
]
Sensitivity = Annotated[
    float | None,
    typer.Option(
        "--sensitivity",
        metavar="SHARE",
        help="Call --positive from the threshold that keeps this, e.g. 0.95, on each run's validation rows.",
        show_default=False,
    ),
]
Prevalence = Annotated[
    str | None,
    typer.Option(
        "--prevalence",
        metavar="SHARES",
        help="PPV, NPV and net benefit where such a share is --positive, e.g. 0.01,0.1.",
        show_default=False,
    ),
]
Abstain = Annotated[bool, typer.Option("--abstain", help="Accuracy when the least confident are left undecided.")]
Only = Annotated[str | None, typer.Option("--only", help="Do these folds alone, e.g. r0f3,r0f4.", show_default=False)]


def origins(ctx: typer.Context) -> dict[str, str]:
    """Where the value of each option came from: default, environment, config or flag."""
    result = {}
    for name in ctx.params:
        source = ctx.get_parameter_source(name)
        result[name] = ORIGINS.get(source.name, "default") if source else "default"
    return result


def values_of(ctx: typer.Context) -> dict[str, Any]:
    """What every parameter was given; paths as `Path`, which some versions of typer make of them only later."""
    paths = {parameter.name for parameter in ctx.command.params if getattr(parameter.type, "name", "") == "path"}
    result: dict[str, Any] = {}
    for name, value in ctx.params.items():
        if isinstance(value, list | tuple):
            result[name] = tuple(Path(entry) if name in paths else entry for entry in value)
        else:
            result[name] = Path(value) if name in paths and value is not None else value
    return result


def collect(ctx: typer.Context, kind: type[Options]) -> Options:
    """Build a step's options from the command line; a field takes the parameter of its own name, if it was given."""
    given = values_of(ctx)
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: given[name] for name in names if given.get(name) not in (None, ())})


def settings(ctx: typer.Context) -> Settings:
    """Build the shared options from the command line; those that a command lacks keep their defaults."""
    from cxrtool.cli.console import reporter
    from cxrtool.flow.parallel import default_workers
    from cxrtool.flow.settings import Settings

    given = values_of(ctx)
    names = {entry.name for entry in fields(Settings)}
    values = {name: value for name, value in given.items() if name in names and value is not None}
    values.setdefault("threads", default_workers())
    values.setdefault("workers", default_workers())
    return Settings(
        **values, origins=origins(ctx), argv=[os.path.basename(sys.argv[0]), *sys.argv[1:]],  # noqa: PTH119
        report=reporter(quiet=bool(given.get("quiet"))),
    )  # fmt: skip


def one_of(option: str, value: str, known: object) -> str:
    """Check a choice.

    Raises:
        UsageError: It is not among `known`; the message names the nearest and all.
    """
    import difflib

    names = [str(name) for name in known]  # type: ignore[attr-defined]
    if value not in names:
        near = difflib.get_close_matches(value, names, 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"{option}: expected one of {', '.join(names)}, found '{value}'{meant}")
    return value
