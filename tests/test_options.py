import doctest
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from pathlib import Path
from typing import Any

import pytest

from cxrtool import options
from cxrtool.errors import CxrtoolError, UsageError
from cxrtool.options import Options, again, argument, declared, flag_of, one_of, option, plain

REGISTRY = {"pad": 1, "crop": 2}


@dataclass(frozen=True)
class ExampleOptions(Options):
    source: Path = argument("What is read.", metavar="SOURCE")
    kind: str = argument("Of which kind.", "a", choices=("a", "b"))
    size: int = option("Side in pixels.", 64, minimum=16)
    fit: str | None = option("How it fits.", None, choices=REGISTRY)
    rule: str = option("By which rule.", "one", choices=lambda: ["one", "two"], flags=("-r", "--by-rule/--no"))
    only: str | None = option("Some alone.", None, effect=False)
    resamples: int = 100

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"size": 32, "fit": "crop"} if given["source"] == Path("preset") else {}


def test_the_examples_in_its_documentation():
    assert doctest.testmod(options).failed == 0


def test_a_field_is_declared_with_its_default_and_what_is_known_of_it():
    found = declared(ExampleOptions)
    assert list(found) == ["source", "kind", "size", "fit", "rule", "only"]
    entry, declaration = found["size"]
    assert (entry.default, declaration.help, declaration.minimum, declaration.argument) == (
        64,
        "Side in pixels.",
        16,
        False,
    )
    assert found["source"][1].argument
    assert found["source"][1].metavar == "SOURCE"


def test_options_are_a_frozen_dataclass_with_its_defaults():
    made = ExampleOptions(Path("x"), "b")
    assert (made.size, made.fit, made.rule, made.resamples) == (64, None, "one", 100)
    with pytest.raises(TypeError, match="source"):
        ExampleOptions()
    with pytest.raises(FrozenInstanceError):
        made.size = 3


def test_choices_are_names_a_registry_or_what_gives_one():
    known = {name: declaration.known() for name, (_, declaration) in declared(ExampleOptions).items()}
    assert known["kind"] == ["a", "b"]
    assert known["fit"] == ["pad", "crop"]
    assert known["rule"] == ["one", "two"]
    assert known["size"] == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kind": "c"}, "KIND: expected one of a, b, found 'c'"),
        ({"fit": "crob"}, "--fit: expected one of pad, crop, found 'crob'; did you mean 'crop'?"),
        ({"rule": "three"}, "--by-rule: expected one of one, two, found 'three'"),
    ],
)
def test_what_is_no_choice_is_refused_by_its_flag(given, told):
    with pytest.raises(UsageError) as caught:
        ExampleOptions(Path("x"), **given)
    assert caught.value.message.startswith(told)


def test_choices_that_are_not_closed_allow_others():
    @dataclass(frozen=True)
    class OpenOptions(Options):
        model: str = option("{choices}, or any of timm.", "a", choices=("a", "b"), closed=False)

    assert OpenOptions("resnet18").model == "resnet18"
    assert declared(OpenOptions)["model"][1].known() == ["a", "b"]


def test_an_option_is_declared_again_with_another_default():
    @dataclass(frozen=True)
    class MoreOptions(ExampleOptions):
        size: int = again(ExampleOptions, "size", 128, shown="more", effect=False)

    entry, declaration = declared(MoreOptions)["size"]
    assert (entry.default, declaration.help, declaration.minimum) == (128, "Side in pixels.", 16)
    assert (declaration.shown, declaration.effect) == ("more", False)
    # What a class declares itself comes first.
    assert list(declared(MoreOptions)) == ["size", *(name for name in declared(ExampleOptions) if name != "size")]
    assert declared(ExampleOptions)["size"][0].default == 64


def test_a_choice_names_all_and_the_nearest():
    one_of("--fit", "pad", ["pad", "crop"])
    with pytest.raises(UsageError, match=r"--fit: expected one of pad, crop, found 'crob'; did you mean 'crop'\?"):
        one_of("--fit", "crob", {"pad": 1, "crop": 2})
    with pytest.raises(CxrtoolError, match="expected one of pad, found 'xyz'"):
        one_of("--fit", "xyz", ["pad"])


def test_a_flag_is_the_name_unless_another_is_declared():
    assert flag_of("batch_size") == "--batch-size"
    assert flag_of("batch_size", declared(ExampleOptions)["size"][1]) == "--batch-size"
    assert flag_of("rule", declared(ExampleOptions)["rule"][1]) == "--by-rule"


def test_values_become_what_json_knows():
    assert plain((Path("a"), [Path("b"), 1], None, 0.5, "x")) == ["a", ["b", 1], None, 0.5, "x"]
    assert plain(Path("a") / "b") == "a/b"


def test_what_was_given_goes_before_a_preset_and_a_preset_before_the_default():
    assert ExampleOptions.build({"source": Path("x"), "size": 16}) == (ExampleOptions(Path("x"), size=16), {})
    made, origins = ExampleOptions.build({"source": Path("preset"), "size": 16})
    assert made == ExampleOptions(Path("preset"), size=16, fit="crop")
    assert origins == {"fit": "preset"}


def test_the_identity_holds_what_bears_on_the_result():
    assert ExampleOptions(Path("x"), only="r0f0").identity() == {
        "source": "x",
        "kind": "a",
        "size": 64,
        "fit": None,
        "rule": "one",
        "resamples": 100,
    }
