"""From a command's options dataclass to its command line: every flag, `--config`, and the origin of each value."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_origin, get_type_hints

import typer
from typer.core import TyperCommand

from cxrtool import processors
from cxrtool.cli import CONTEXT, Invocation
from cxrtool.data.files import STDIN
from cxrtool.data.structured import LARGEST_OPTIONS, load_json, load_toml
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.replacing import check_inputs, locked_output
from cxrtool.flow.settings import Settings, Silent
from cxrtool.options import Declaration, Options, declared, flag_of

OWN, RUN = "Options", "Run"
"""Headings of a command's own options, and of those that commands share."""

SHORT = 12
"""Options up to which the help of a command has no headings."""

ORIGINS = {"COMMANDLINE": "flag", "ENVIRONMENT": "environment", "DEFAULT": "default", "DEFAULT_MAP": "config"}


def command_of(name: str, module: ModuleType) -> Any:
    """Build the command of a module.

    The docstring of the module is the help; its `run` takes an options dataclass and the shared settings, and may
    return an exit code.
    """
    run: Callable[[Any, Settings], int | None] = module.run
    kind: type[Options] = get_type_hints(run)["options"]

    def call(ctx: typer.Context, **_: Any) -> None:
        options, settings = read(ctx, kind)
        check_inputs(settings.out, _paths(options, settings))
        # Folders have locks of their own, because several tasks may work in one run.
        with locked_output(settings.out if kind.WRITES_FILE and not settings.dry_run else None):
            code = run(options, settings)
        if code:
            raise typer.Exit(code)

    context = inspect.Parameter("ctx", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    call.__signature__ = inspect.Signature([context, *parameters(kind)])  # type: ignore[attr-defined]
    call.__annotations__ = {}
    call.__doc__ = module.__doc__
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    single.command(name.rpartition(" ")[2], cls=PanelCommand, context_settings=CONTEXT)(call)
    return typer.main.get_command(single)


def _paths(options: Options, settings: Settings) -> list[Path]:
    """The paths that a command may read: every value that is one, also where it has a name, as in internal=PATH."""
    values = [settings.config, *(getattr(options, name) for name in declared(type(options)) if name != "out")]
    paths = []
    for value in values:
        for entry in value if isinstance(value, tuple) else (value,):
            if isinstance(entry, str | Path) and "\0" not in str(entry):
                paths += [Path(entry), *([Path(str(entry).partition("=")[2])] if "=" in str(entry) else [])]
    return paths


class PanelCommand(TyperCommand):
    """A command whose help lists its options under headings, in the order in which they are declared."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each heading."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or OWN, []).append(record)
        for panel in sorted(panels, key=lambda name: name == RUN):
            with formatter.section(panel):
                formatter.write_dl(panels[panel])


def parameters(kind: type[Options]) -> list[inspect.Parameter]:
    """The parameters of a command: its own options, then the shared ones that it names."""
    own, shared = declared(kind), declared(Settings)
    taken = {**own, **{name: shared[name] for name in kind.SHARED if name not in own}}
    types = {**get_type_hints(Settings), **get_type_hints(kind)}
    ordered = sorted(taken.items(), key=lambda item: not item[1][1].argument)
    # A short help needs no headings.
    headed = len(taken) > SHORT
    panels = {name: declaration.panel or ("" if name in own else RUN) for name, (_, declaration) in ordered}
    return [_parameter(name, types[name], *entry, panels[name] if headed else "") for name, entry in ordered]


def _parameter(name: str, kind: Any, entry: Field[Any], declaration: Declaration, panel: str) -> inspect.Parameter:
    required = entry.default is MISSING
    base = next(part for part in (get_args(kind) or (kind,)) if part is not type(None) and part is not ...)
    annotation: Any = list[base] if get_origin(kind) is tuple else base  # type: ignore[valid-type]
    # An option whose default is decided later, or that may be given several times, has no default here.
    late = declaration.shown is not None or get_origin(kind) is tuple
    default = ... if required else None if late else entry.default
    more: dict[str, Any] = {"help": _help(entry, declaration), "show_default": False}
    if base in (int, float):
        more |= {"min": declaration.minimum, "max": declaration.maximum}
    named = {"metavar": declaration.metavar, "envvar": declaration.envvar}
    more |= {key: value for key, value in named.items() if value}
    if declaration.choices is not None:
        more["autocompletion"] = _completion(declaration)
    if panel:
        more["rich_help_panel"] = panel
    if name == "config":
        more |= {"callback": _read_config, "is_eager": True}
    flags = declaration.flags or (flag_of(name),)
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=typer.Argument(default, **more) if declaration.argument else typer.Option(default, *flags, **more),
        annotation=annotation if required else annotation | None,
    )


def _completion(declaration: Declaration) -> Callable[[str], list[str]]:
    """What gives a shell the values of an option; of several with commas between, those of the last."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [f"{before}{comma}{name}" for name in declaration.known() if name.startswith(last)]

    return complete


def _help(entry: Field[Any], declaration: Declaration) -> str:
    text, shown = declaration.help, declaration.shown
    # Only where needed: finding the choices may import slow modules.
    if "{choices}" in text:
        text = text.replace("{choices}", ", ".join(declaration.known()))
    # Not `in (..., False)`, because a default of 0 is shown.
    if shown is None and not isinstance(entry.default, bool) and entry.default not in (MISSING, None, (), ""):
        shown = str(entry.default)
    return f"{text}  [default: {shown.replace('{default}', str(entry.default))}]" if shown else text


def read(ctx: typer.Context, kind: type[Options]) -> tuple[Any, Settings]:
    """The options and the shared settings of a command line, with the origin of each value."""
    from cxrtool.cli.console import Console, Lines

    types = {**get_type_hints(Settings), **get_type_hints(kind)}
    origins, values = {}, {}
    for name, value in ctx.params.items():
        source = ctx.get_parameter_source(name)
        origins[name] = ORIGINS.get(source.name, "default") if source else "default"
        values[name] = _typed(value, types[name])
    own = declared(kind)
    if "out" not in own and values.get("out") == STDIN:
        # As without -o: the result goes to standard output, where the command can write it there.
        values["out"] = None
    _check_streams({name: values[name] for name in own}, own)
    given = {name: values[name] for name in own if origins[name] != "default"}
    options, found = kind.build(given)
    shared = {name: values[name] for name in values.keys() - own.keys() if values[name] is not None}
    machine = dict.fromkeys(("threads", "workers"), processors.usable())
    called = ctx.find_root().obj or Invocation()
    settings = Settings(**{**machine, **shared}, origins={**origins, **found}, argv=called.argv, call=called.run)
    if called.report is not None:
        # What this command runs in turn is shown, or not, as it is itself.
        return options, replace(settings, report=called.report, call=partial(called.run, report=called.report))
    report = Silent() if settings.quiet else Lines()
    return options, replace(settings, report=report, output=Console(settings.style, settings.digits, report))


def _check_streams(values: Mapping[str, Any], known: Mapping[str, tuple[Any, Declaration]]) -> None:
    """Raise a `UsageError` where standard input, which is one table, is given for several inputs."""
    taken = [
        declaration.metavar or name.upper() if declaration.argument else flag_of(name, declaration)
        for name, (_, declaration) in known.items()
        for value in (values[name] if isinstance(values[name], tuple) else [values[name]])
        # Some inputs may have a name, as in internal=-.
        if (declaration.argument and str(value).endswith("=-")) or value in (STDIN, str(STDIN))
    ]
    if len(taken) > 1:
        raise UsageError(
            f"expected standard input (-) for one input, found it for {' and '.join(taken)}",
            "give the others as files, or in bash as <(COMMAND)",
        )


def _typed(value: Any, kind: Any) -> Any:
    """A value as its field has it: paths as `Path`, which some versions of typer convert only later."""
    path = Path in (kind, *get_args(kind))
    if isinstance(value, list | tuple):
        return tuple(Path(entry) if path else entry for entry in value)
    return Path(value) if path and value is not None else value


def _read_config(ctx: typer.Context, value: Path | None) -> Path | None:
    """Take defaults from a TOML file or from an old `run.json`; flags on the command line override them."""
    if value is None:
        return None
    value = Path(value)
    try:
        content = load_json(value, LARGEST_OPTIONS) if value.suffix == ".json" else load_toml(value)
    except OSError as error:
        raise InputError(f"--config {value}: cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"--config {value}: expected TOML, or the run.json of an earlier run: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {value}: expected names and values, found a list")
    name = ctx.command_path.partition(" ")[2] or str(ctx.info_name)
    if "digest" in content and "options" in content:
        content = _repeat(value, content, name)
    # As on the command line, and as a run.json has it.
    known = {word.lstrip("-").replace("-", "_"): one.name for one in ctx.command.params for word in one.opts}
    known |= {one.name: one.name for one in ctx.command.params if one.name}
    flat = {known.get(word := key.replace("-", "_")) or word: entry for key, entry in content.items()}
    unknown = sorted(set(flat) - set(known))
    if unknown and value.suffix != ".json":
        near = difflib.get_close_matches(unknown[0], sorted(known), 1)
        raise UsageError(
            f"--config {value}: `{name}` has no option '{unknown[0].replace('_', '-')}'",
            f"did you mean '{near[0].replace('_', '-')}'?" if near else f"`cxrtool {name} --help` lists them",
        )
    ctx.default_map = {**(ctx.default_map or {}), **{key: flat[key] for key in flat if flat[key] is not None}}
    return value


def _repeat(path: Path, made: dict[str, Any], name: str) -> dict[str, Any]:
    """The options of an earlier run; a `UsageError` if it is the run of another command."""
    options = {key: entry["value"] for key, entry in made["options"].items()}
    # Earlier versions had one command where there is a group now; its first argument was an option.
    member = options.get("action", options.get("kind")) if " " in name else None
    before = " ".join(filter(None, (made.get("command"), member)))
    if before != name:
        raise UsageError(f"--config {path}: expected a run of `cxrtool {name}`, found one of `{before}`")
    return options | {key: made[key] for key in ("seed", "threads")}
