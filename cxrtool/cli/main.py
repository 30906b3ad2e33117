"""The application: lists every command, imports only the one that is called, turns errors into messages.

To add a command, add one file in `cxrtool.commands` and its name in `COMMANDS`.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import itertools
import os
import re
import select
import sys
from collections.abc import Mapping, Sequence
from keyword import iskeyword
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

import cxrtool
from cxrtool import processors, stopping
from cxrtool.cli import CONTEXT, Invocation
from cxrtool.errors import CxrtoolError, StoppedError
from cxrtool.flow.settings import Reporter

COMMANDS: dict[str, tuple[str, ...]] = {
    "Data": ("prepare", "select", "split", "audit", "info"),
    "Images": ("segment", "grade", "enhance", "transform"),
    "Models": ("fit", "train", "predict", "fuse", "weights"),
    "Results": ("evaluate", "compare", "explain", "report"),
    "Toolbox": ("help", "recipe", "phantom", "cache", "doctor", "demo"),
}
"""The panels of the help, and the commands in each; a command is a module of `cxrtool.commands`."""

NAMES = tuple(itertools.chain.from_iterable(COMMANDS.values()))

DIVIDED = "train"
"""The command that several processes, started by `torchrun`, can do together."""

PROGRAM = "cxrtool"
COMPLETE = "_CXRTOOL_COMPLETE"
"""The variable by which a shell asks for completions."""

_WRONG_NUMBER = re.compile(r"Invalid value for '([^']+)': '(.*)' is not a valid (float|int)(?:eger)?(?: range)?")

START = "Start with:  cxrtool demo | cxrtool prepare FOLDER | cxrtool info PATH"


class LazyGroup(TyperGroup):
    """A group of commands; a command's module is imported when it is called, not when it is listed."""

    def __init__(self, *, members: Mapping[str, tuple[str, ...]] = COMMANDS, prefix: str = "", **more: Any) -> None:
        super().__init__(**more)
        self.members, self.prefix = members, prefix

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Show the help where no argument is given."""
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, panel by panel."""
        return list(itertools.chain.from_iterable(self.members.values()))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Import one command and build it."""
        return load(self.prefix + cmd_name) if cmd_name in self.list_commands(ctx) else None

    def shell_complete(self, ctx: Any, incomplete: str) -> list[Any]:
        """What a shell offers: the commands that start so, without importing them, or the options."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from typer._click.shell_completion import CompletionItem

        names = [name for name in self.list_commands(ctx) if name.startswith(incomplete)]
        return [CompletionItem(name, help=line_of(self.prefix + name)) for name in names]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or suggest the nearest one."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            near = difflib.get_close_matches(name, known, 1)
            meant = f"; did you mean `{self.prefix}{near[0]}`?" if near else ""
            among = f" among {', '.join(known)}" if self.prefix and not near else ""
            ctx.fail(f"no such command '{self.prefix}{name}'{among}{meant}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List the commands in their panels, without importing them."""
        for panel, names in self.members.items():
            with formatter.section(panel):
                formatter.write_dl([(name, line_of(self.prefix + name)) for name in names])

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """End with the commands to start with."""
        if not self.prefix:
            formatter.write_paragraph()
            formatter.write_text(START)


def module_of(name: str) -> str:
    """The module of a command, as it is imported.

    >>> module_of("train"), module_of("fit lungs"), module_of("weights import")
    ('cxrtool.commands.train', 'cxrtool.commands.fit.lungs', 'cxrtool.commands.weights.import_')
    """
    parts = [f"{part}_" if iskeyword(part) else part for part in name.split()]
    return ".".join(("cxrtool.commands", *parts))


def line_of(name: str) -> str:
    """The first line of a command's module, which is its line in the help."""
    file = Path(cxrtool.__file__).parents[1].joinpath(*module_of(name).split("."))
    file = file / "__init__.py" if file.is_dir() else file.with_suffix(".py")
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip().strip('"')


def load(name: str) -> Any:
    """Import a command and return it ready to be called.

    A module with `run` is a command; one with `KINDS` is a group of commands, each a module beside it.
    """
    from cxrtool.cli.options import command_of

    module = importlib.import_module(module_of(name))
    members = members_of(module)
    if not members:
        return command_of(name, module)
    return LazyGroup(
        name=name,
        members={"Commands": members},
        prefix=f"{name} ",
        help=module.__doc__,
        rich_markup_mode=None,
        context_settings=CONTEXT,
    )


def members_of(module: ModuleType) -> tuple[str, ...]:
    """The commands of a group, as they are typed; none where the module is a command itself."""
    return () if hasattr(module, "run") else tuple(getattr(module, "KINDS", ()))


app = typer.Typer(cls=LazyGroup, rich_markup_mode=None, context_settings=CONTEXT)


def _version(value: bool) -> None:
    if value:
        sys.stdout.write(f"cxrtool {cxrtool.__version__}\n")
        raise typer.Exit


@app.callback()
def cxrtool_(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    """From a folder of chest radiographs to a result that you can trust.

    Every step reads and writes plain files, so steps are chained in shell scripts and Makefiles. For research; not a
    medical device.
    """


def main(argv: list[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code."""
    stopping.start()
    _open_streams()
    if wanted := os.environ.get(COMPLETE):
        sys.exit(_complete(wanted))
    args = sys.argv[1:] if argv is None else argv
    name = _called(args)
    if (ranks := processors.ranks()) > 1 and name and name != DIVIDED:
        message = f"expected one process, found that torchrun has started {ranks}, which would all write the same"
        stopping.finish(_write(f"{PROGRAM} {name}", message, f"only `{DIVIDED}` can be divided by torchrun", 2))
    stopping.finish(run(args))


def _complete(wanted: str) -> int:
    """Print what a shell offers after the words that have been typed; they are in its variables."""
    from typer._completion_classes import completion_init
    from typer.completion import shell_complete

    completion_init()
    return shell_complete(typer.main.get_command(app), {}, PROGRAM, COMPLETE, wanted)


def _open_streams() -> None:
    # A stream that the caller closed is None; a manifest on standard output is UTF-8 in every locale.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def run(args: Sequence[str], report: Reporter | None = None) -> int:
    """Run the command line; return its exit code. A user's error becomes a message of one or two lines.

    Args:
        args: The command line, without the name of the program.
        report: Gets messages and progress in place of standard error; results then go nowhere.
    """
    # Pictures are drawn without a display; a notebook hands down a backend that exists only in its own process.
    os.environ["MPLBACKEND"] = "Agg"
    with stopping.Heeded(f"cxrtool {_called(args)}".strip()) as heeded:
        try:
            _invoke(args, report)
            sys.stdout.flush()
            return 0
        except typer.Exit as leaving:
            return leaving.exit_code
        except (Exception, KeyboardInterrupt) as error:
            if isinstance(error, StoppedError) and not heeded.is_outermost:
                # A command that calls this one has to end too.
                raise
            return _report(error, f"cxrtool {_called(args)}".strip())


def _called(args: Sequence[str]) -> str:
    """The command that was called, with its group, as it is typed."""
    name, *rest = [*itertools.dropwhile(lambda arg: arg not in NAMES, args), ""]
    # A group is imported by now where one of its members was called.
    module = sys.modules.get(module_of(name))
    return f"{name} {rest[0]}" if module and rest and rest[0] in members_of(module) else name


def _report(error: BaseException, prefix: str) -> int:
    """Write the message of an error; return the exit code."""
    match error:
        case CxrtoolError():
            return _write(prefix, error.message, error.hint, error.exit_code)
        case StoppedError():
            stopping.told()
            return _write(prefix, error.message, None, error.exit_code)
        case TyperException():
            return _write(prefix, _plain(error), f"see `{prefix} --help`", error.exit_code)
        case OSError() if _reader_left(error):
            # The reader of the pipe stopped reading, as `head` does: this is no error.
            _drop_output()
            return 0
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EIO):
            _drop_output()
            return _write(prefix, f"cannot write: {error.strerror}", "free some space, or write elsewhere", 1)
        case KeyboardInterrupt() | typer.Abort():
            return _write(prefix, f"interrupted; {stopping.AGAIN}", None, 130)
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            return _write(prefix, "too many open files for the limit of this shell", "`ulimit -n 1024` raises it", 1)
        case _ if _lacks_memory(error):
            return _write(prefix, "not enough memory", "use fewer --workers or a smaller --batch-size", 1)
        case _:
            return _report_bug(prefix, error)


_NO_MEMORY = re.compile(r"map segment|allocate memory|Insufficient memory|start new thread|bad_alloc")


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory was refused, in the words of Python, of the loader of libraries, of torch or of OpenCV."""
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)) is not None


def _invoke(args: Sequence[str], report: Reporter | None) -> None:
    # Not through typer's own `main`, which exits with code 1 on a closed pipe.
    group = typer.main.get_command(app)
    called = Invocation([Path(sys.argv[0]).name, *args], run, report)
    with group.make_context(PROGRAM, list(args), obj=called) as ctx:
        group.invoke(ctx)


def _reader_left(error: OSError) -> bool:
    # A pipe to a worker process can break too, and that is a failure.
    if not isinstance(error, BrokenPipeError):
        return False
    poll = select.poll()
    for number in (1, 2):
        poll.register(number, 0)
    return any(events & (select.POLLERR | select.POLLHUP) for _, events in poll.poll(0))


def _drop_output() -> None:
    # Otherwise Python flushes the rest of the buffer at exit, and fails again.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _report_bug(prefix: str, error: BaseException) -> int:
    if os.environ.get("CXRTOOL_DEBUG"):
        raise error
    import traceback

    traceback.print_exception(error)
    return _write(prefix, f"a bug in cxrtool: {type(error).__name__}: {error}", "please report the lines above", 1)


def _plain(error: TyperException) -> str:
    possibilities = getattr(error, "possibilities", None)
    option = getattr(error, "option_name", "")
    if option and possibilities is not None:
        near = difflib.get_close_matches(option, possibilities, 1, 0.3) or list(possibilities)[:1]
        return f"no such option {option}" + (f"; did you mean {near[0]}?" if near else "")
    text = " ".join(error.format_message().rstrip(".").split())
    if option and text.lower().startswith("no such option"):
        return f"no such option {option}"
    if wrong := _WRONG_NUMBER.fullmatch(text):
        option, value, kind = wrong.groups()
        # In many countries the decimals come after a comma.
        point = value.replace(",", ".")
        meant = f"; did you mean {point}?" if kind == "float" and point.replace(".", "", 1).isdecimal() else ""
        return f"{option}: expected {'a number' if kind == 'float' else 'a whole number'}, found '{value}'{meant}"
    return text


def _write(prefix: str, message: str, hint: str | None, code: int) -> int:
    # One line each, even if a file name or a library's message contains line breaks.
    texts = [f"{prefix}: {message}", *([f"  {hint}"] if hint else [])]
    lines = "".join(" ".join(text.splitlines()) + "\n" for text in texts)
    try:
        sys.stderr.write(lines)
        sys.stderr.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
    return code
