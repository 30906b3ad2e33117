"""A published system as its file in `cxrtool.recipes` describes it: variables, choices and steps."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.resources import files

from cxrtool.errors import UsageError
from cxrtool.options import one_of

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
    one_of("NAME", name, names())
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
