"""The application: knows every command by name, imports only the one that is called, turns errors into lines.

Adding a command costs one file in this room and one line in `COMMANDS`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import select
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import cxrtool
from cxrtool.errors import CxrtoolError, StoppedError

PANELS = ("Data", "Images", "Models", "Results", "Toolbox")

COMMANDS: dict[str, tuple[str, str]] = {
    "prepare": ("Data", "Read radiographs of any kind into grey PNGs and a manifest."),
    "select": ("Data", "Choose, relabel, thin out or join the rows of manifests."),
    "split": ("Data", "Divide patients into training, validation and test."),
    "audit": ("Data", "Say what an accuracy is worth: leaks, confounding, shortcuts."),
    "info": ("Data", "Say what a manifest, model, run or image is."),
    "segment": ("Images", "Find the lungs; crop to them, keep them alone, or erase them."),
    "enhance": ("Images", "Match histograms, suppress ribs, equalise contrast, in any order."),
    "transform": ("Images", "Write what generators make of every image, fold by fold."),
    "fit": ("Models", "Fit a lung network, a rib network, or class-inherent generators."),
    "train": ("Models", "Train a network on every fold of a split."),
    "predict": ("Models", "Ask a model about an image, a folder or a manifest."),
    "fuse": ("Models", "Make one answer of two networks, of an image's twins, or of runs."),
    "weights": ("Models", "Take in a network from elsewhere, fetch ImageNet weights, list them."),
    "evaluate": ("Results", "Accuracy per class and group, with intervals and pictures."),
    "compare": ("Results", "Runs side by side, and whether they differ on the same images."),
    "explain": ("Results", "Show where a network looks, and measure whether it is the lungs."),
    "report": ("Results", "One page on a run, to read, print and send: results to methods."),
    "recipe": ("Toolbox", "Print a published system's whole chain of commands."),
    "phantom": ("Toolbox", "Draw chest radiographs from anatomy, with the truth about each."),
    "doctor": ("Toolbox", "Check this machine and installation."),
    "demo": ("Toolbox", "Run the whole chain on the phantoms that come with cxrtool."),
}
"""Name of every command, its panel in the help and its one line there."""

START = "Start with:  cxrtool demo | cxrtool prepare FOLDER | cxrtool info PATH"


class LazyGroup(TyperGroup):
    """The group of all commands; a command's module is imported when it is called, not when it is listed."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, panel by panel."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command and build it."""
        if cmd_name not in COMMANDS:
            return None
        return load(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or name the nearest one."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-"):
            near = difflib.get_close_matches(name, COMMANDS, 1)
            meant = f"; did you mean `{near[0]}`?" if near else ""
            ctx.fail(f"no such command '{name}'{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in their panels, without importing any of them."""
        for panel in PANELS:
            rows = [(name, text) for name, (where, text) in COMMANDS.items() if where == panel]
            if rows:
                with formatter.section(panel):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """End with the commands to start with."""
        formatter.write_paragraph()
        formatter.write_text(START)


def load(name: str) -> Any:
    """Import the command `name` and return it ready to be called."""
    function = getattr(importlib.import_module(f"cxrtool.cli.{name}"), name)
    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    settings = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
    single.command(name, context_settings=settings)(function)
    return typer.main.get_command(single)


app = typer.Typer(
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"cxrtool {cxrtool.__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def cxrtool_(
    ctx: typer.Context,
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """From a folder of chest radiographs to an answer one can trust.

    Every step reads and writes plain files, so steps are chained in shell scripts and Makefiles. For research; not a
    medical device.
    """
    if ctx.invoked_subcommand is None:
        sys.stdout.write(ctx.get_help() + "\n")


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    _open_streams()
    args = sys.argv[1:] if argv is None else argv
    sys.exit(run(args))


def _open_streams() -> None:
    # A stream that the caller closed is missing altogether; a manifest on standard output is UTF-8 in every locale.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def run(args: list[str]) -> int:
    """Run the command line; return its exit code, with every error of the user's told in one or two lines."""
    name = next((arg for arg in args if arg in COMMANDS), "")
    prefix = f"cxrtool {name}".strip()
    signal.signal(signal.SIGTERM, _on_terminate)
    try:
        _invoke(args)
        sys.stdout.flush()
        return 0
    except typer.Exit as leaving:
        return leaving.exit_code
    except CxrtoolError as error:
        return _tell(prefix, error.message, error.hint, error.exit_code)
    except TyperException as error:
        return _tell(prefix, _plain(error), f"`{prefix} --help` shows what there is", error.exit_code)
    except OSError as error:
        if _reader_left(error):
            # It had enough, as `head` has: nothing went wrong.
            _drop_output()
            return 0
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            _drop_output()
            return _tell(prefix, f"cannot write: {error.strerror}", "free some space, or write elsewhere", 1)
        return _tell_bug(prefix, error)
    except (KeyboardInterrupt, typer.Abort):
        return _tell(prefix, "interrupted", "the same command goes on where it stopped", 130)
    except MemoryError:
        return _tell(prefix, "not enough memory", "fewer --workers or a smaller --batch-size need less", 1)
    except Exception as error:
        return _tell_bug(prefix, error)


def _invoke(args: list[str]) -> None:
    # Not through typer's own `main`, which would answer a closed pipe with exit code 1.
    group = typer.main.get_command(app)
    with group.make_context("cxrtool", list(args)) as ctx:
        group.invoke(ctx)


def _reader_left(error: OSError) -> bool:
    # A pipe to a worker process can break too, and that must not pass for success.
    if not isinstance(error, BrokenPipeError):
        return False
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _drop_output() -> None:
    # What is still in the stream's buffer would fail again when Python flushes it at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _tell_bug(prefix: str, error: Exception) -> int:
    if os.environ.get("CXRTOOL_DEBUG"):
        raise error
    import traceback

    traceback.print_exception(error)
    return _tell(prefix, f"a bug in cxrtool: {type(error).__name__}: {error}", "please report the lines above", 1)


def _on_terminate(number: int, frame: object) -> None:
    raise StoppedError("stopped by SIGTERM", 143, "the same command goes on where it stopped")


def _plain(error: TyperException) -> str:
    possibilities = getattr(error, "possibilities", None)
    option = getattr(error, "option_name", "")
    if option and possibilities is not None:
        near = difflib.get_close_matches(option, possibilities, 1, 0.3) or list(possibilities)[:1]
        return f"no such option {option}" + (f"; did you mean {near[0]}?" if near else "")
    text = error.format_message().rstrip(".")
    if option and text.lower().startswith("no such option"):
        return f"no such option {option}"
    return " ".join(text.split())


def _tell(prefix: str, message: str, hint: str | None, code: int) -> int:
    # One line each, whatever a file name or a library's message holds.
    told = [f"{prefix}: {message}", *([f"  {hint}"] if hint else [])]
    lines = "".join(" ".join(text.splitlines()) + "\n" for text in told)
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code
