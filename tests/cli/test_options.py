import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
import typer

from cxrtool.cli import options
from cxrtool.errors import CxrtoolError, InputError, UsageError


@dataclass(frozen=True)
class ExampleOptions:
    source: tuple[Path, ...]
    size: int = 512
    names: tuple[str, ...] = ("default",)
    extra: Path | None = None


@pytest.fixture
def call(monkeypatch):
    """Parse a command line; return the step's options and the shared ones."""
    caught = {}

    def example(
        ctx: typer.Context,
        source: Annotated[list[Path], typer.Argument()],
        size: Annotated[int, typer.Option("--size")] = 512,
        names: Annotated[list[str] | None, typer.Option("--names")] = None,
        extra: Annotated[Path | None, typer.Option("--extra")] = None,
        out: options.Out = None,
        seed: options.Seed = 0,
        threads: options.Threads = None,
        workers: options.Workers = None,
        cache: options.Cache = None,
        quiet: options.Quiet = False,
        config: options.Config = None,
    ) -> None:
        caught["own"] = options.collect(ctx, ExampleOptions)
        caught["shared"] = options.settings(ctx)

    def parse(*args):
        app = typer.Typer(add_completion=False)
        app.command("example")(example)
        typer.main.get_command(app)([str(arg) for arg in args], standalone_mode=False, prog_name="example")
        return caught["own"], caught["shared"]

    monkeypatch.delenv("CXRTOOL_CACHE", raising=False)
    return parse


def test_fields_take_the_parameters_of_their_names(call):
    own, shared = call("a", "b", "--size", "64", "--names", "x", "--names", "y", "-o", "out", "--seed", "3")
    assert own == ExampleOptions((Path("a"), Path("b")), 64, ("x", "y"))
    assert shared.out == Path("out")
    assert shared.seed == 3


def test_what_is_not_given_keeps_the_default_of_the_step(call):
    own, shared = call("a")
    assert own == ExampleOptions((Path("a"),))
    assert shared.threads >= 1
    assert shared.workers >= 1
    assert shared.out is None


def test_paths_are_paths(call):
    own, shared = call("a", "--extra", "b", "--cache", "c")
    assert isinstance(own.source[0], Path)
    assert isinstance(own.extra, Path)
    assert isinstance(shared.cache, Path)


def test_where_each_value_came_from(call, tmp_path, monkeypatch):
    (tmp_path / "c.toml").write_text("seed = 5\nsize = 99\n")
    monkeypatch.setenv("CXRTOOL_CACHE", "/tmp/x")
    own, shared = call("a", "--size", "64", "--config", tmp_path / "c.toml")
    assert own.size == 64
    assert shared.seed == 5
    assert shared.cache == Path("/tmp/x")
    origins = {name: shared.origins[name] for name in ("size", "seed", "cache", "quiet")}
    assert origins == {"size": "flag", "seed": "config", "cache": "environment", "quiet": "default"}


def test_an_old_run_json_repeats_that_run(call, tmp_path):
    made = {
        "command": "example", "digest": "x", "seed": 7, "threads": 2,
        "options": {"size": {"value": 256, "origin": "flag"}, "names": {"value": ["p", "q"], "origin": "flag"},
                    "gone": {"value": 1, "origin": "default"}, "extra": {"value": None, "origin": "default"}},
    }  # fmt: skip
    (tmp_path / "run.json").write_text(json.dumps(made))
    own, shared = call("a", "--config", tmp_path / "run.json")
    assert own == ExampleOptions((Path("a"),), 256, ("p", "q"))
    assert (shared.seed, shared.threads) == (7, 2)
    made["command"] = "prepare"
    (tmp_path / "run.json").write_text(json.dumps(made))
    with pytest.raises(UsageError, match="expected a run of `cxrtool example`, found one of `prepare`"):
        call("a", "--config", tmp_path / "run.json")


@pytest.mark.parametrize(
    ("name", "text", "error", "told"),
    [
        ("c.toml", "siez = 3\n", UsageError, "has no option 'siez'"),
        ("c.toml", "size = \n", InputError, "expected TOML"),
        ("c.json", "[1]", InputError, "expected names and values"),
        ("c.toml", None, InputError, "cannot be read: No such file"),
        ("c.toml", "\xff", InputError, "expected TOML"),
    ],
)
def test_a_configuration_that_is_none_is_refused(call, tmp_path, name, text, error, told):
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(error, match=told):
        call("a", "--config", tmp_path / name)


def test_kebab_case_in_a_configuration_is_understood(cxr, tiny, tmp_path):
    (tmp_path / "c.toml").write_text('leave-out = "source"\nquiet = true\n')
    outcome = cxr("split", tiny.origin, "--config", tmp_path / "c.toml")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("image_id,repeat,fold,subset\n")


def test_quiet_says_nothing(call, capsys):
    for flags, told in (([], "hello\n"), (["--quiet"], "")):
        call("a", *flags)[1].report.say("hello")
        assert capsys.readouterr().err == told


def test_a_choice_names_all_and_the_nearest():
    assert options.one_of("--fit", "pad", ["pad", "crop"]) == "pad"
    with pytest.raises(UsageError, match=r"--fit: expected one of pad, crop, found 'crob'; did you mean 'crop'\?"):
        options.one_of("--fit", "crob", {"pad": 1, "crop": 2})
    with pytest.raises(CxrtoolError, match="expected one of pad, found 'xyz'"):
        options.one_of("--fit", "xyz", ["pad"])
