"""Print the commands that reproduce a published system.

As a Makefile, a shell script, or a script that submits itself to SLURM; without a name it lists the systems. The
variables at the top can be set when the script is run, or here.

Example: cxrtool recipe makris > makris.mk && make -f makris.mk DATA=images
"""

from __future__ import annotations

import difflib
import re
import shlex
import textwrap
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.resources import files
from typing import ClassVar

from cxrtool.errors import UsageError
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, option

ITEM = "NETWORK"
"""The loop variable of steps that are done for every item of a list, unless a recipe has another name for it."""


def _listed(suffix: str) -> list[str]:
    """The names, without the suffix, of the files of recipes, in order."""
    return sorted(
        entry.name.removesuffix(suffix) for entry in files("cxrtool.recipes").iterdir() if entry.name.endswith(suffix)
    )


def names() -> list[str]:
    """The systems with a recipe."""
    return _listed(".toml")


def formats() -> list[str]:
    """The output formats of a recipe, each with a template."""
    return _listed(".template")


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
    estimate: bool = option("Print the number of trainings and a rough time on this machine instead.", False)


def run(options: RecipeOptions, settings: Settings) -> None:
    """Print a recipe, its estimated time, or the list of recipes."""
    if options.name is None:
        settings.output.table(*listing())
    elif options.estimate:
        from cxrtool.commands.recipe.estimate import estimate

        found = estimate(options, settings)
        total, worth = found.sentences()
        settings.output.table(*found.table(), title=total)
        settings.output.write(worth + "\n")
    else:
        settings.output.write(recipe(options, settings))


@dataclass(frozen=True)
class Variable:
    """A variable that a user may set: its name, default and description."""

    name: str
    default: str
    help: str


@dataclass(frozen=True)
class Choice:
    """A variable that depends on whether another is empty."""

    name: str
    when: str
    set: str
    unset: str


@dataclass(frozen=True)
class Step:
    """One command of a chain.

    Attributes:
        name: Its name as a target.
        help: What it does, in a line.
        makes: The file below OUT that exists once it is done.
        command: The command line, without the program's own name.
        needs: Files below OUT that it reads.
        each: A list; the command is called for every item.
        over: A list; the command takes all items at once, as `arguments` and as `needs`.
        arguments: The replacement of `{arguments}`, once for each item of `over`.
        forced: It has variables as options, so only the command itself can decide whether it is up to date.
        array: A scheduler runs it as an array over items and folds; such steps follow one another.
    """

    name: str
    help: str
    makes: str
    command: str
    needs: tuple[str, ...] = ()
    each: str = ""
    over: str = ""
    arguments: str = ""
    forced: bool = False
    array: bool = False


@dataclass(frozen=True)
class Recipe:
    """A system as a chain of commands.

    Attributes:
        about: What the paper states and what is ours.
        small: Variables for a quick trial.
        preset: The preset of its trainings.
        item: The loop variable of steps that are done for every item of a list.
        networks: The networks that are trained, repeated as often as they are trained; may contain variables.
        uncounted: What else is trained, in words.
        holdout: The share of the images that is used for training, without folds.
        lists: Variables made of others.
        choices: Variables that depend on others.
    """

    name: str
    title: str
    about: str
    small: str
    preset: str
    variables: tuple[Variable, ...]
    steps: tuple[Step, ...]
    lists: Mapping[str, str] = field(default_factory=dict)
    choices: tuple[Choice, ...] = ()
    item: str = ITEM
    networks: str = "${NETWORKS}"
    uncounted: str = ""
    holdout: float = 0.8

    def value(self, name: str) -> str:
        """The value of a variable."""
        return next(variable.default for variable in self.variables if variable.name == name)

    def has(self, name: str) -> bool:
        """Whether there is such a variable."""
        return any(variable.name == name for variable in self.variables)

    def trained(self) -> list[str]:
        """The networks that are trained, repeated as often as they are trained."""
        return re.sub(r"\$\{(\w+)\}", lambda found: self.value(found[1]), self.networks).split()


def read_recipe(name: str, values: Sequence[str] = ()) -> Recipe:
    """Read a system's file, with values instead of its defaults.

    Args:
        name: The system.
        values: Texts `VARIABLE=VALUE`.

    Raises:
        UsageError: There is no such system, or no such variable.
    """
    if name not in names():
        near = difflib.get_close_matches(name, names(), 1)
        meant = f"; did you mean '{near[0]}'?" if near else ""
        raise UsageError(f"expected one of {', '.join(names())}, found '{name}'{meant}", "`cxrtool recipe` lists them")
    content = tomllib.loads((files("cxrtool.recipes") / f"{name}.toml").read_text(encoding="utf-8"))
    variables = {key: Variable(key, *entry) for key, entry in content.pop("variables").items()}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or key not in variables:
            near = difflib.get_close_matches(key, variables, 1, 0.5)
            meant = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"expected VARIABLE=VALUE of {', '.join(variables)}, found '{text}'{meant}")
        if "\n" in value:
            raise UsageError(f"{key}: expected one line, found several")
        variables[key] = replace(variables[key], default=value)
    steps = tuple(Step(**{**step, "needs": tuple(step.get("needs", ()))}) for step in content.pop("steps"))
    choices = tuple(Choice(**choice) for choice in content.pop("choices", ()))
    return Recipe(name=name, variables=tuple(variables.values()), steps=steps, choices=choices, **content)


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


def waves(steps: Sequence[Step]) -> list[list[Step]]:
    """Groups of trainings that a scheduler may run at once; a new group begins where a step needs the run of another.

    Args:
        steps: The steps of its arrays, in order.
    """
    found: list[list[Step]] = []
    for step in steps:
        if not found or any(other.makes in step.needs for other in found[-1]):
            found.append([])
        found[-1].append(step)
    return found


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
