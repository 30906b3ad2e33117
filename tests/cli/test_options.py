import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from cxrtool.cli import Invocation, options
from cxrtool.cli.main import LazyGroup
from cxrtool.commands.train.options import TrainOptions
from cxrtool.errors import InputError, UsageError
from cxrtool.flow.settings import Settings
from cxrtool.options import Options, argument, declared, flag_of, option


@dataclass(frozen=True)
class ExampleOptions(Options):
    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "threads", "workers", "cache", "quiet", "style", "config")

    source: tuple[Path, ...] = argument("What is read.", metavar="SOURCE...")
    size: int = option("Side in pixels.", 512, minimum=16, maximum=1024)
    names: tuple[str, ...] = option("What they are called.", ("default",), shown="one")
    extra: Path | None = option("One more.", None, shown="")
    fit: str = option("How it fits: {choices}.", "pad", choices=("pad", "crop"))
    preset: str | None = option("Values of several.", None, shown="")
    hidden: int = 3

    @classmethod
    def preset_of(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"size": 32, "names": ("preset",)} if given.get("preset") else {}


@pytest.fixture
def caught():
    """What the command was called with."""
    return {}


@pytest.fixture
def step(caught):
    """What stands for a command's module."""

    def run(options: ExampleOptions, settings: Settings) -> int | None:
        caught.update(own=options, shared=settings)
        return caught.get("code")

    return SimpleNamespace(run=run, __doc__="Try things out.")


@pytest.fixture
def command(step):
    """The command of `ExampleOptions`."""
    return options.command_of("example", step)


@pytest.fixture
def of_group(step):
    """Call a member of a group of commands, each with `ExampleOptions`."""

    class Group(LazyGroup):
        def get_command(self, ctx, cmd_name):
            return options.command_of(f"group {cmd_name}", step)

    class Program(LazyGroup):
        def get_command(self, ctx, cmd_name):
            return Group(name="group", members={"Commands": ("one", "two")}, prefix="group ")

    program = Program(name="cxrtool", members={"Commands": ("group",)})
    return lambda *args: program(["group", *args], standalone_mode=False, prog_name="cxrtool")


@pytest.fixture
def call(command, caught, monkeypatch):
    """Parse a command line; return the step's options and the shared ones."""

    def parse(*args, **more):
        command([str(arg) for arg in args], standalone_mode=False, prog_name="example", **more)
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


def test_a_preset_lies_between_the_defaults_and_what_is_given(call, tmp_path):
    own, shared = call("a", "--preset", "p", "--size", "64")
    assert own == ExampleOptions((Path("a"),), 64, ("preset",), preset="p")
    origins = {name: shared.origins[name] for name in ("size", "names", "extra", "preset")}
    assert origins == {"size": "flag", "names": "preset", "extra": "default", "preset": "flag"}
    (tmp_path / "c.toml").write_text("size = 99\n")
    own, shared = call("a", "--preset", "p", "--config", tmp_path / "c.toml")
    assert (own.size, shared.origins["size"]) == (99, "config")


def test_an_old_run_json_repeats_that_run(call, tmp_path):
    made = {
        "command": "example",
        "digest": "x",
        "seed": 7,
        "threads": 2,
        "options": {
            "size": {"value": 256, "origin": "flag"},
            "names": {"value": ["p", "q"], "origin": "flag"},
            "gone": {"value": 1, "origin": "default"},
            "extra": {"value": None, "origin": "default"},
        },
    }
    (tmp_path / "run.json").write_text(json.dumps(made))
    own, shared = call("a", "--config", tmp_path / "run.json")
    assert own == ExampleOptions((Path("a"),), 256, ("p", "q"))
    assert (shared.seed, shared.threads) == (7, 2)
    made["command"] = "prepare"
    (tmp_path / "run.json").write_text(json.dumps(made))
    with pytest.raises(UsageError, match="expected a run of `cxrtool example`, found one of `prepare`"):
        call("a", "--config", tmp_path / "run.json")


@pytest.mark.parametrize("told", [{"kind": "one"}, {"action": "one"}, {"action": "one", "kind": "two"}])
def test_an_old_run_json_of_a_command_that_is_a_group_today_repeats_that_run(of_group, caught, tmp_path, told):
    made = {"command": "group", "digest": "x", "seed": 7, "threads": 2, "options": {"size": {"value": 256}}}
    made["options"] |= {name: {"value": value} for name, value in told.items()}
    (tmp_path / "run.json").write_text(json.dumps(made))
    of_group("one", "a", "--config", str(tmp_path / "run.json"))
    assert caught["own"] == ExampleOptions((Path("a"),), 256)
    with pytest.raises(UsageError, match="expected a run of `cxrtool group two`, found one of `group one`"):
        of_group("two", "a", "--config", str(tmp_path / "run.json"))


def test_an_old_run_of_fit_is_one_of_its_members(cxr, chests, tmp_path):
    options = {"kind": "lungs", "network": "unet", "size": 64, "epochs": 3, "loss": "dice", "own": 24, "form": {}}
    made = {"command": "fit", "digest": "x", "seed": 7, "threads": 2}
    made["options"] = {name: {"value": value, "origin": "flag"} for name, value in options.items()}
    (tmp_path / "run.json").write_text(json.dumps(made))
    outcome = cxr("fit", "lungs", chests.origin, "--config", tmp_path / "run.json", "--dry-run", "-o", tmp_path / "out")
    assert outcome.code == 0
    assert outcome.err.endswith(f"would write {tmp_path / 'out'}: it is not there yet\n")
    outcome = cxr("fit", "ribs", chests.origin, "--config", tmp_path / "run.json", "-o", tmp_path / "out")
    assert outcome.code == 2
    told = f"--config {tmp_path / 'run.json'}: expected a run of `cxrtool fit ribs`, found one of `fit lungs`"
    assert outcome.err.startswith(f"cxrtool fit ribs: {told}\n")


@pytest.mark.parametrize(
    ("name", "text", "error", "told"),
    [
        ("c.toml", "siez = 3\n", UsageError, "`example` has no option 'siez'"),
        ("c.toml", "size = \n", InputError, "expected TOML"),
        ("c.json", "[1]", InputError, "expected names and values"),
        ("c.toml", None, InputError, "cannot be read: No such file"),
        ("c.toml", "\xff", InputError, "expected TOML"),
        ("c.toml", 'fit = "crob"\n', UsageError, "--fit: expected one of pad, crop, found 'crob'"),
        ("c.toml", 'format = "xml"\n', UsageError, "--format: expected one of table, md, latex, csv, json"),
        ("c.toml", 'style = "xml"\n', UsageError, "--format: expected one of table, md, latex, csv, json"),
    ],
)
def test_a_configuration_that_is_none_is_refused(call, tmp_path, name, text, error, told):
    if text is not None:
        (tmp_path / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(error, match=told):
        call("a", "--config", tmp_path / name)


def test_a_mistyped_name_in_a_configuration_is_answered_with_the_nearest(cxr, tiny, tmp_path):
    (tmp_path / "c.toml").write_text("leave-ot = 'source'\n")
    assert "did you mean 'leave-out'?" in cxr("split", tiny.origin, "--config", tmp_path / "c.toml").err


def test_names_in_a_configuration_are_those_of_the_command_line(cxr, tiny, tmp_path):
    (tmp_path / "c.toml").write_text('format = "json"\n')
    assert cxr("audit", tiny.origin, "--quick", "--config", tmp_path / "c.toml").out.startswith("{")


def test_kebab_case_in_a_configuration_is_understood(cxr, tiny, tmp_path):
    (tmp_path / "c.toml").write_text('leave-out = "source"\nquiet = true\n')
    outcome = cxr("split", tiny.origin, "--config", tmp_path / "c.toml")
    assert outcome.code == 0
    assert outcome.err == ""
    assert outcome.out.startswith("image_id,repeat,fold,subset,made_by,row_digest\n")


def test_quiet_says_nothing(call, capsys):
    for flags, told in (([], "hello\n"), (["--quiet"], "")):
        call("a", *flags)[1].report.say("hello")
        assert capsys.readouterr().err == told


def test_results_are_printed_in_the_format_that_was_asked_for(call, capsys):
    call("a", "--quiet", "--format", "csv")[1].output.table(["x"], [["1"]])
    assert capsys.readouterr().out == "x\n1\n"


def test_a_step_knows_how_it_was_called_and_can_call_another(call):
    asked = []
    shared = call("a", obj=Invocation(["cxrtool", "example", "a"], lambda line: asked.append(line) or 5))[1]
    assert list(shared.argv) == ["cxrtool", "example", "a"]
    assert shared.call(["info"]) == 5
    assert asked == [["info"]]


def test_what_run_returns_is_the_exit_code(command, caught):
    caught["code"] = 4
    assert command(["a"], standalone_mode=False, prog_name="example") == 4


def test_the_page_of_help_says_all_that_is_declared(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    command(["--help"], standalone_mode=False, prog_name="example")
    told = capsys.readouterr().out
    assert told.startswith("Usage: example [OPTIONS] {SOURCE...}\n\n  Try things out.\n")
    words = " ".join(told.split())
    for line in (
        "SOURCE... What is read. [required]",
        "--size <int range> Side in pixels. [default: 512] [16<=x<=1024]",
        "--names <str> What they are called. [default: one]",
        "--extra <path> One more. --fit",
        "--fit <str> How it fits: pad, crop. [default: pad]",
        "-o, --out <path> Where to write; exactly there.",
        "--seed <int range> Random seed. [default: 0] [x>=0]",
        "--threads <int range> Threads of the numerical libraries; results depend on it. [default: all processors]",
    ):
        assert line in words
    assert "hidden" not in words
    assert "--device" not in words


def test_own_options_come_before_the_shared_ones(command):
    names = [parameter.name for parameter in command.params]
    assert names[:6] == ["source", "size", "names", "extra", "fit", "preset"]
    assert tuple(names[6:]) == ExampleOptions.SHARED


def test_a_long_help_has_headings_and_every_option_once(cxr):
    text = cxr("train", "--help").out
    heads = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert heads == ["Options", "Network", "Input", "Choice of the epoch", "Augmentation", "Optimizer", "Run"]
    for name, (_, told) in declared(TrainOptions).items():
        assert told.argument or text.count(f"\n  {flag_of(name, told)} ") == 1, name
    # A short one has none.
    assert "\nRun:" not in cxr("doctor", "--help").out
