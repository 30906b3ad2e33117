"""Print the commands that repeat a published system or your own run.

As a Makefile, a shell script, or a script that submits itself to SLURM; without a name it lists the systems. The
variables at the top can be set when the script is run, or here.

With --from, the commands are those that made a run, or the folder of any step, from its images on. What is not
recorded, such as a splits file that was made by hand, stays an input and has a comment.

Example of this: cxrtool recipe --from run > own.mk && make -f own.mk DATA=images OUT=again

Example: cxrtool recipe makris > makris.mk && make -f makris.mk DATA=images
"""

from __future__ import annotations

import re
import shlex
import textwrap
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import ClassVar

from cxrtool.commands.recipe.system import Recipe, Step, formats, names, read_recipe, waves
from cxrtool.errors import UsageError
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, one_of, option

OWN_FORMATS = ("make", "sh")
"""The formats of the chain of a run."""


@dataclass(frozen=True)
class RecipeOptions(Options):
    """The options of `recipe`."""

    SHARED: ClassVar[tuple[str, ...]] = ("threads", "device", "quiet")

    name: str | None = argument("The system; without it, the list of systems.", None, metavar="NAME", shown="")
    values: tuple[str, ...] = argument(
        "Values instead of the recipe's defaults, such as DATA=images EPOCHS=4.",
        (),
        metavar="VARIABLE=VALUE...",
        shown="",
    )
    format: str = option("Output format: {choices}.", "make", choices=formats)
    source: Path | None = option(
        "Print the chain of commands that made this run, as make or sh.",
        None,
        flags=("--from",),
        metavar="RUN",
        shown="",
    )
    estimate: bool = option(
        "Print each step with a rough time and size, from measurements on this machine, instead.", False
    )


def run(options: RecipeOptions, settings: Settings) -> None:
    """Print a recipe, its estimated time, or the list of recipes."""
    if options.source is not None:
        settings.output.write(own_chain(options, settings))
    elif options.name is None:
        settings.output.table(*listing())
    elif options.estimate:
        from cxrtool.commands.recipe.estimate import estimate

        found = estimate(read_recipe(options.name, options.values), settings)
        total, worth = found.sentences()
        settings.output.table(*found.table(), title=total)
        columns, rows, title = found.extrapolated()
        settings.output.table(columns, rows, title=title)
        settings.output.write(worth)
    else:
        settings.output.write(recipe(options, settings))


def own_chain(options: RecipeOptions, settings: Settings) -> str:
    """The chain of commands that made a run as text.

    Raises:
        UsageError: A name, an estimate or another format is asked for, too.
        InputError: There is no such run, or how it was made is not recorded.
    """
    from cxrtool.commands.recipe.own import OwnChain

    if options.source is None or options.name is not None:
        raise UsageError(
            f"expected NAME or --from RUN, found both: {options.name} and --from {options.source}",
            "variables are set when the script is run: make -f own.mk DATA=images",
        )
    if options.estimate:
        raise UsageError("--estimate: expected NAME, found --from", "`run.json` has the seconds of each step")
    one_of("--format with --from", options.format, OWN_FORMATS)
    return OwnChain.of(options.source, settings, make=options.format == "make").text()


def recipe(options: RecipeOptions, settings: Settings) -> str:
    """A system's chain of commands as text.

    Raises:
        UsageError: There is no such system or variable.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    system = read_recipe(options.name or "", options.values)
    environment = Environment(
        loader=FunctionLoader(lambda name: (files("cxrtool.recipes") / name).read_text(encoding="utf-8")),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        autoescape=False,
    )
    environment.filters |= {
        "comment": _comment,
        "quote": shlex.quote,
        "escape_make": _escape_make,
        "every": partial(_every, system.item),
        "stem": partial(_stem, system.item),
        "call_make": partial(_call_make, system.item),
        "call_sh": partial(_call_sh, system.item),
        "call_one": _call_one,
    }
    arrays = [index for index, step in enumerate(system.steps) if step.array]
    first, last = arrays[0], arrays[-1] + 1
    trained = system.steps[first:last]
    text = environment.get_template(f"{options.format}.template").render(
        **{entry: getattr(system, entry) for entry in Recipe.__dataclass_fields__},
        before=system.steps[:first],
        arrays=trained,
        waves=waves(trained),
        after=system.steps[last:],
    )
    text = re.sub(r" +\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).rstrip("\n") + "\n"


def listing() -> tuple[list[str], list[list[str]]]:
    """The systems as a table."""
    return ["name", "system"], [[name, read_recipe(name).title] for name in names()]


def _comment(text: str) -> str:
    return textwrap.indent(text.strip(), "# ", lambda line: True)


def _escape_make(text: str) -> str:
    return text.replace("$", "$$").replace("#", "\\#")


def _every(item: str, path: str, items: str) -> str:
    """A file below OUT, or one for every item of a list, in the syntax of make."""
    mark = f"${{{item}}}"
    if mark not in path:
        return f"$(OUT)/{path}"
    return f"$({items}:%=$(OUT)/{path.replace(mark, '%')})"


def _stem(item: str, path: str) -> str:
    return f"$(OUT)/{path.replace(f'${{{item}}}', '%')}"


def _call_make(item: str, step: Step) -> str:
    call = step.command.replace("{arguments}", f"$(foreach {item},$({step.over}),{step.arguments})")
    return call.replace("\\\n", "\\\n\t    ")


def _call_one(step: Step) -> str:
    return f"${{CXRTOOL}} {step.command}".replace("\\\n", "\\\n        ")


def _call_sh(item: str, step: Step) -> str:
    call = _call_one(step)
    if step.over:
        loop = f'set --\nfor {item} in ${{{step.over}}}; do\n    set -- "$@" {step.arguments}\ndone\n'
        return loop + call.replace("{arguments}", '"$@"')
    if step.each:
        return f"for {item} in ${{{step.each}}}; do\n    {call}\ndone"
    return call
