import re
import shutil
import subprocess

import pytest

from cxrtool.cli.main import NAMES, LazyGroup, load
from cxrtool.commands.recipe import RecipeOptions, listing, recipe
from cxrtool.commands.recipe.system import formats, names, read_recipe, waves
from cxrtool.errors import UsageError
from cxrtool.training.presets import PRESETS

NINE = [
    "vgg16",
    "vgg19",
    "mobilenetv2_100",
    "inception_v3",
    "legacy_xception",
    "inception_resnet_v2",
    "densenet201",
    "resnetv2_101",
    "nasnetalarge",
]


def text_of(settings, name="makris", style="make", *values):
    return recipe(RecipeOptions(name, values, style), settings)


def test_what_there_is_is_listed():
    columns, rows = listing()
    assert columns == ["name", "system"]
    assert [name for name, _ in rows] == names()
    assert "makris" in names()


@pytest.mark.parametrize("name", names())
def test_a_recipe_calls_commands_and_flags_that_there_are(name):
    for step in read_recipe(name).steps:
        words = step.command.replace("\\\n", " ").split()
        assert words[0] in NAMES
        command = load(words[0])
        if isinstance(command, LazyGroup):
            command = load(" ".join(words[:2]))
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in words if re.fullmatch(r"-\w|--[a-z-]+", word)} <= known
        for preset in re.findall(r"--preset (\S+)", step.command):
            # One that is a variable is checked where its recipe is.
            assert preset in PRESETS or preset == f"${{{read_recipe(name).item}}}"


@pytest.mark.parametrize("name", names())
def test_every_variable_is_used_and_every_one_used_is_there(name):
    system = read_recipe(name)
    known = {variable.name for variable in system.variables}
    made = set(system.lists) | {choice.name for choice in system.choices}
    texts = [step.command + step.arguments for step in system.steps]
    texts += [*system.lists.values(), *(choice.set + choice.unset for choice in system.choices)]
    used = {found for text in texts for found in re.findall(r"\$\{(\w+)\}", text)}
    used |= {choice.when for choice in system.choices}
    used |= {name for step in system.steps for name in (step.each, step.over) if name}
    assert used - {system.item} == (known | made) - {"CXRTOOL"}


@pytest.mark.parametrize("name", names())
def test_a_step_needs_what_a_step_before_it_makes(name):
    system = read_recipe(name)
    lists = {**system.lists, **{choice.name: f"{choice.set} {choice.unset}" for choice in system.choices}}
    lists |= {variable.name: variable.default for variable in system.variables}

    def items(step):
        texts = re.sub(r"\$\{(\w+)\}", lambda found: lists[found[1]], lists[step.each or step.over])
        return texts.split()

    made = set()
    for step in system.steps:
        for need in step.needs:
            several = items(step) if f"${{{system.item}}}" in need else [""]
            for item in several:
                path = need.replace(f"${{{system.item}}}", item)
                assert path in made, f"{step.name} needs {path}"
        many = items(step) if step.each else [""]
        made |= {step.makes.replace(f"${{{system.item}}}", item) for item in many}


@pytest.mark.parametrize("name", names())
def test_the_steps_that_an_array_does_follow_one_another(name):
    arrays = [step.array for step in read_recipe(name).steps]
    first, last = arrays.index(True), len(arrays) - arrays[::-1].index(True)
    assert all(arrays[first:last])
    assert not any(arrays[last:])


def test_makris_is_what_the_paper_states():
    system = read_recipe("makris")
    defaults = {variable.name: variable.default for variable in system.variables}
    assert defaults["NETWORKS"].split() == NINE
    assert [defaults[name] for name in ("WEIGHTS", "SIZE", "EPOCHS", "BATCH", "FOLDS")] == [
        "imagenet",
        "224",
        "35",
        "8",
        "",
    ]
    # The preset and the recipe say the same, each where its user looks.
    for name, key in (("WEIGHTS", "weights"), ("SIZE", "size"), ("EPOCHS", "epochs"), ("BATCH", "batch_size")):
        assert defaults[name] == str(PRESETS["makris"][key])
    assert "resnetv2_101 replaces ResNet152V2" in system.about.replace("\n", " ")
    assert system.choices[0].unset == "--holdout 80/20"


def test_values_take_the_place_of_defaults_whatever_they_hold(settings, tmp_path):
    odd = '/a b/it\'s $HOME #1 `x` "q" }'
    for style in ("sh", "slurm"):
        script = text_of(settings, "makris", style, f"DATA={odd}", "CXRTOOL=")
        lines = [line for line in script.splitlines() if line.removeprefix("export ").startswith("DATA=")]
        for environment, expected in (({}, odd), ({"DATA": "mine"}, "mine")):
            command = ["sh", "-c", f'{lines[0]}\nprintf %s "$DATA"']
            told = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert told.stdout == expected


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_reads_odd_values_as_they_are(settings, tmp_path):
    makefile = text_of(settings, "makris", "make", "DATA=/a b/it's $HOME #1 `x`")
    (tmp_path / "m.mk").write_text(makefile + "show:\n\t$(info $(DATA))\n\t@true\n")
    told = subprocess.run(["make", "-f", tmp_path / "m.mk", "show"], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[0] == "/a b/it's $HOME #1 `x`"


@pytest.mark.parametrize("style", formats())
@pytest.mark.parametrize("name", names())
def test_a_text_is_clean(settings, name, style):
    text = text_of(settings, name, style)
    assert text.endswith("\n")
    assert "\n\n\n" not in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    assert "{%" not in text
    assert "{{" not in text
    comments = [line for line in text.splitlines() if line.startswith("#") and "make -f" not in line]
    assert max(map(len, comments)) <= 120
    # What every line with a program's name starts with can be replaced.
    calls = [line for line in text.splitlines() if re.match(r"\s*\S*CXRTOOL\S* [a-z]+ ", line)]
    assert len(calls) >= sum(not step.array for step in read_recipe(name).steps)


@pytest.mark.parametrize("shell", ["sh", "bash", "dash"])
@pytest.mark.parametrize(("name", "style"), [(name, style) for name in names() for style in ("sh", "slurm")])
def test_scripts_are_understood_by_shells(settings, tmp_path, shell, name, style):
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} on this machine")
    (tmp_path / "script").write_text(text_of(settings, name, style))
    told = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
    assert (told.returncode, told.stderr) == (0, "")


def test_a_task_of_slurm_s_array_asks_to_be_queued_again(settings):
    text = text_of(settings, "makris", "slurm")
    assert "#SBATCH --requeue\n" in text
    assert "#SBATCH --signal=USR1@" in text
    assert re.search(
        r'"\$code" -eq 75 .*\n +scontrol requeue "\$\{SLURM_ARRAY_JOB_ID\}_\$\{SLURM_ARRAY_TASK_ID\}"', text
    )


@pytest.mark.parametrize(
    ("name", "values", "style", "message"),
    [
        ("makris2", (), "make", "expected one of .*makris.*, found 'makris2'; did you mean 'makris'"),
        ("makris", ("EPOCH=3",), "make", "found 'EPOCH=3'; did you mean EPOCHS"),
        ("makris", ("EPOCHS",), "make", "expected VARIABLE=VALUE"),
        ("makris", ("OUT=a\nb",), "make", "OUT: expected one line"),
        ("makris", (), "bat", "--format: expected one of make, sh, slurm, found 'bat'"),
    ],
)
def test_what_is_wrong_is_told(settings, name, values, style, message):
    with pytest.raises(UsageError, match=message):
        text_of(settings, name, style, *values)


def test_covid_sdnet_is_what_the_paper_states():
    system = read_recipe("covid-sdnet")
    defaults = {variable.name: variable.default for variable in system.variables}
    assert [defaults[name] for name in ("REPEATS", "FOLDS", "LOSS_WEIGHT", "POSITIVE")] == ["5", "5", "0.05", "P"]
    # What each network states is in its preset: one number for all would be none's.
    assert not any(defaults[name] for name in ("SIZE", "EPOCHS", "BATCH"))
    assert all(preset in PRESETS for preset in defaults["BASELINES"].split())
    commands = {step.name: step.command for step in system.steps}
    assert "--validation 0.1" in commands["split"]
    assert "--crop --margin 0.025" in commands["segmented"]
    assert commands["twins"].count("--preset covid-sdnet") == 1


def test_portable_densenet161_is_what_the_paper_states():
    system = read_recipe("portable-densenet161")
    defaults = {variable.name: variable.default for variable in system.variables}
    preset = PRESETS["portable-densenet161"]
    assert defaults["REPEATS"] == "5"
    for name, key in (("WEIGHTS", "weights"), ("SIZE", "size"), ("EPOCHS", "epochs"), ("BATCH", "batch_size")):
        assert defaults[name] == str(preset[key])
    assert "--holdout 60/20/20" in next(step.command for step in system.steps if step.name == "split")


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
@pytest.mark.parametrize(("optimizers", "runs"), [("", []), ("sgd rmsprop", ["whole-sgd", "whole-rmsprop"])])
def test_other_optimizers_are_trained_and_compared_where_there_are_some(settings, tmp_path, optimizers, runs):
    values = (f"OPTIMIZERS={optimizers}", "CXRTOOL=echo", "OUT=out", "DATA=images")
    (tmp_path / "v.mk").write_text(text_of(settings, "vgg16-portable", "make", *values))
    (tmp_path / "v.sh").write_text(text_of(settings, "vgg16-portable", "sh", *values))
    for call in (["make", "-n", "-f", "v.mk"], ["sh", "v.sh"]):
        told = subprocess.run(call, capture_output=True, text=True, check=True, cwd=tmp_path)
        lines = told.stdout.replace("\\\n", " ").replace('"', "").splitlines()
        trained = [line.split() for line in lines if "--preset vgg16-portable" in line]
        others = [words for words in trained if "--opt" in words]
        assert len(trained) == 2 + len(runs)
        assert [(words[words.index("--opt") + 1], words[-1]) for words in others] == [
            (name.removeprefix("whole-"), f"out/runs/{name}") for name in runs
        ]
        (compared,) = [re.findall(r"out/runs/([\w-]+)", line) for line in lines if "--published" in line]
        assert compared == ["whole", "segmented", *runs, "thumbnail", "whole"]


def test_a_training_that_needs_another_waits_for_it():
    system = read_recipe("covid-sdnet")
    found = waves([step for step in system.steps if step.array])
    assert [[step.name for step in wave] for wave in found] == [
        ["fit", "fit-untrained", "baseline", "train"],
        ["twins", "twins-untrained"],
    ]
    assert len(waves([step for step in read_recipe("portable-densenet161").steps if step.array])) == 1
