"""The recipes as a user runs them: on a tiny set, with tiny networks, through make, a shell and a pretended cluster."""

import os
import re
import shutil
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cxrtool.commands.recipe.system import names, read_recipe
from cxrtool.data.tables.manifest import read_table

NETWORKS = ("lcnet_035", "mobilenetv2_035")
VALUES = {
    "DATA": "radiographs",
    "NETWORKS": " ".join(NETWORKS),
    "WEIGHTS": "none",
    "SIZE": "32",
    "EPOCHS": "1",
    "TRAIN": "--threads 1 --workers 1 --device cpu",
    # The probes of an audit have tests of their own.
    "AUDIT": "--quick",
    "CXRTOOL": f"{sys.executable} -m cxrtool",
}
TIMEOUT = 400
SUFFIXES = {"make": ".mk", "sh": ".sh", "slurm": ".slurm"}

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def draw_data(folder):
    """30 small pictures of three classes that differ in where they are bright."""
    for index in range(30):
        label = ("covid", "normal", "pneumonia")[index % 3]
        pixels = np.random.default_rng(index).integers(0, 100, (36, 36), np.uint8)
        pixels[12 * (index % 3) : 12 * (index % 3) + 12] += 120
        (folder / label).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / label / f"p{index:02}.png"), pixels)


def tree(folder):
    """Every file's content, but for what tells the time, also of the images, or holds figures of time."""
    told = {"run.json", "journal.jsonl", "comparison.json", "comparison.csv", "tables.md"}
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in told and path.parent.name not in ("comparison", "reports")
    }


def times(folder):
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def environment(place):
    return {**os.environ, "CXRTOOL_CACHE": str(place / "cache"), "OMP_NUM_THREADS": "1"}


def call(command, place, timeout=TIMEOUT, **variables):
    told = subprocess.run(
        command, cwd=place, env={**environment(place), **variables}, capture_output=True, text=True, timeout=timeout
    )
    assert told.returncode == 0, told.stdout[-3000:] + told.stderr[-3000:]
    return told


def make(place, *more, recipe="makris", **changes):
    values = [f"{name}={value}" for name, value in {**VALUES, **changes}.items()]
    return call(["make", "-f", f"{recipe}.mk", *values, *more], place)


def lay(place, cxr, style="make", name="makris"):
    draw_data(place / "radiographs")
    outcome = cxr("recipe", name, "--format", style)
    assert outcome.code == 0, outcome.err
    (place / f"{name}{SUFFIXES[style]}").write_text(outcome.out)


@pytest.fixture(scope="module")
def made(tmp_path_factory, warm):
    """What make makes of it, once for all tests of this file."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    place = tmp_path_factory.mktemp("made")
    draw_data(place / "radiographs")
    printed = subprocess.run([sys.executable, "-m", "cxrtool", "recipe", "makris"], capture_output=True, text=True)
    (place / "makris.mk").write_text(printed.stdout)
    make(place, CXRTOOL=warm)
    return place


@pytest.fixture
def copy(made, tmp_path):
    """A project that was made, moved elsewhere."""
    place = tmp_path / "moved"
    shutil.copytree(made, place)
    return place


def test_everything_is_there(made):
    out = made / "makris"
    assert {path.name for path in (out / "runs").iterdir()} == {*NETWORKS, "thumbnail"}
    for network in (*NETWORKS, "thumbnail"):
        assert (out / "runs" / network / "r0f0" / "predictions.csv").exists()
        assert (out / "evaluations" / network / "tables.md").exists()
        assert list((out / "evaluations" / network).glob("*.png"))
    assert (out / "comparison" / "manifest.csv").exists()
    report = (out / "comparison" / "tables.md").read_text()
    assert all(network in report for network in (*NETWORKS, "thumbnail"))


def test_make_again_changes_nothing(copy, warm):
    before = times(copy / "makris")
    told = make(copy, CXRTOOL=warm)
    assert times(copy / "makris") == before
    assert " evaluate " not in told.stdout
    assert "epoch" not in told.stderr


def test_a_changed_variable_redoes_what_lies_downstream_and_nothing_else(copy, warm):
    before = times(copy / "makris")
    make(copy, EPOCHS="2", CXRTOOL=warm)
    after = times(copy / "makris")
    changed = {name for name in after if after[name] != before.get(name)}
    tops = {"/".join(name.split("/")[:2]) for name in changed}
    assert tops == {
        *(f"{kind}/{network}" for kind in ("runs", "evaluations") for network in NETWORKS),
        *(f"reports/{network}.html" for network in NETWORKS),
        *(name for name in tops if name.startswith("comparison/")),
    }
    assert "comparison/manifest.csv" in changed
    for network in NETWORKS:
        assert len((copy / "makris/runs" / network / "r0f0/history.csv").read_text().splitlines()) == 3
        assert f"evaluations/{network}/metrics.json" in changed
    before = times(copy / "makris")
    make(copy, EPOCHS="2", CXRTOOL=warm)
    assert times(copy / "makris") == before


def test_a_changed_image_reaches_the_tables(copy, warm):
    cv2.imwrite(str(copy / "radiographs" / "covid" / "p00.png"), np.full((36, 36), 90, np.uint8))
    before = times(copy / "makris")
    make(copy, NETWORKS="lcnet_035", CXRTOOL=warm)
    after = times(copy / "makris")
    for name in (
        "prepared/manifest.csv",
        "runs/lcnet_035/manifest.csv",
        "runs/thumbnail/manifest.csv",
        "evaluations/lcnet_035/manifest.csv",
        "comparison/manifest.csv",
    ):
        assert after[name] > before[name], name
    assert after["runs/mobilenetv2_035/manifest.csv"] == before["runs/mobilenetv2_035/manifest.csv"]


@needs_make
def test_several_jobs_at_once_make_the_same(made, tmp_path, cxr, warm):
    lay(tmp_path, cxr)
    make(tmp_path, "-j2", CXRTOOL=warm)
    assert tree(tmp_path / "makris") == tree(made / "makris")


def test_an_interrupted_make_goes_on(copy):
    changes = {"EPOCHS": "40", "NETWORKS": "lcnet_035"}
    values = [f"{name}={value}" for name, value in {**VALUES, **changes}.items()]
    command = ["make", "-f", "makris.mk", "train", *values]
    task = subprocess.Popen(
        command,
        cwd=copy,
        env=environment(copy),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    for line in task.stderr:
        if re.match(r"r0f0  epoch [5-9] ", line):
            break
    os.killpg(task.pid, signal.SIGTERM)
    rest = task.stderr.read()
    task.stderr.close()
    assert task.wait(60) != 0
    assert "run the same command again to continue" in rest
    # Neither make nor the command has removed what was there before.
    run = copy / "makris" / "runs" / "lcnet_035"
    assert (run / "r0f0" / "predictions.csv").exists()
    assert len(list(run.glob(".r0f0.*.partial/state/last.pt"))) == 1
    told = subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, timeout=TIMEOUT)
    assert told.returncode == 0, told.stderr[-3000:]
    epochs = [int(match[1]) for match in re.finditer(r"^r0f0  epoch (\d+) ", told.stderr, re.MULTILINE)]
    assert epochs[0] >= 5
    assert not list(run.glob(".r0f0.*"))
    assert len((run / "r0f0/history.csv").read_text().splitlines()) == 41


RECORDER = """#!/bin/sh
# Stands for cxrtool: writes down how it was called, and makes what make looks for.
printf '%s|' "$@" >> calls; echo >> calls
while [ $# -gt 1 ]; do
    [ "$1" = -o ] && case $2 in *.csv) mkdir -p "${2%/*}"; : > "$2" ;; *) mkdir -p "$2"; : > "$2/manifest.csv" ;; esac
    shift
done
"""


@pytest.fixture
def recorder(tmp_path, cxr):
    """A folder with all three forms of every recipe and a program that writes down how it is called."""
    for name in names():
        for style in SUFFIXES:
            lay(tmp_path, cxr, style, name)
    (tmp_path / "record").write_text(RECORDER)
    (tmp_path / "record").chmod(0o755)
    return tmp_path


RECORDED = {**VALUES, "CXRTOOL": "./record", "DATA": "my data"}


def calls(place):
    lines = (place / "calls").read_text().splitlines()
    (place / "calls").unlink()
    return lines


@needs_make
@pytest.mark.parametrize("folds", ["", "3"])
def test_make_and_the_shell_call_the_same(recorder, folds):
    make(recorder, **{**RECORDED, "FOLDS": folds})
    by_make = calls(recorder)
    call(["sh", "makris.sh"], recorder, **{**RECORDED, "FOLDS": folds})
    by_shell = calls(recorder)
    assert sorted(by_make) == sorted(by_shell)
    assert [line.split("|")[0] for line in by_shell] == [
        "prepare",
        "split",
        *["train"] * 3,
        "audit",
        *["evaluate"] * 3,
        "compare",
        *["report"] * 3,
    ]
    assert by_shell[0] == "prepare|my data|--dataset|auto|-o|makris/prepared|"
    division = "--folds|3|--validation|0" if folds else "--holdout|80/20"
    assert by_shell[1] == f"split|makris/prepared|{division}|--seed|0|-o|makris/splits.csv|"
    assert by_shell[-4].startswith("compare|makris/runs/lcnet_035|makris/runs/mobilenetv2_035|makris/runs/thumbnail|")


def test_the_shell_script_takes_names_that_hold_spaces(recorder):
    call(["sh", "makris.sh"], recorder, **{**RECORDED, "OUT": "the results"})
    lines = calls(recorder)
    assert "|-o|the results/runs/thumbnail|" in lines[2]
    assert lines[-4].startswith("compare|the results/runs/lcnet_035|the results/runs/mobilenetv2_035|")
    assert (recorder / "the results" / "comparison" / "manifest.csv").exists()


def test_the_shell_script_stops_where_a_command_fails(recorder):
    (recorder / "record").write_text('#!/bin/sh\necho "$1" >> calls\n[ "$1" != split ]\n')
    told = subprocess.run(["sh", "makris.sh"], cwd=recorder, env={**environment(recorder), **RECORDED})
    assert told.returncode != 0
    assert calls(recorder) == ["prepare", "split"]


VGG16 = [
    "prepare",
    "select",
    "split",
    "segment",
    "segment",
    "train",
    "train",
    "train",
    "audit",
    *["evaluate"] * 3,
    "compare",
    "explain",
    "explain",
    *["report"] * 3,
]
COVID_XNET = ["prepare", "select", "split", "segment", "enhance", "train", "train"]
SDNET = ["prepare", "select", "split", "segment", "segment", "train", "fit"]
PORTABLE = [
    "prepare",
    "segment",
    *["select"] * 3,
    *["split"] * 3,
    *["train"] * 4,
    "fuse",
    "fuse",
    "audit",
    *["evaluate"] * 7,
    *["compare"] * 3,
    "explain",
    "explain",
    "report",
]
CHAINS = [
    ("vgg16-portable", {}, VGG16),
    ("vgg16-portable", {"FOLDS": "5", "PER_CLASS": "20", "LUNGS": "lungs"}, VGG16),
    ("covid-xnet", {}, [*COVID_XNET, "audit", "evaluate", "evaluate", "compare", "explain", "report", "report"]),
    (
        "covid-xnet",
        {"BUDGET": "4", "FOLDS": "", "ONE_PER": "", "RIBS": "ribs", "PIXELS": "256"},
        [*COVID_XNET, "train", "audit", *["evaluate"] * 3, "compare", "explain", *["report"] * 3],
    ),
    ("portable-densenet161", {"REPEATS": "2"}, PORTABLE),
    ("portable-densenet161", {"WHERE": "view = 'AP'", "PRIOR": "yes", "LUNGS": "lungs"}, PORTABLE),
    (
        "covid-sdnet",
        {"REPEATS": "2", "FOLDS": "3"},
        [*SDNET, *["train"] * 5, "fuse", "audit", *["evaluate"] * 7, "compare", "explain", "report"],
    ),
    (
        "covid-sdnet",
        {
            "REPEATS": "1",
            "FOLDS": "2",
            "SIZE": "",
            "EPOCHS": "",
            "BASELINES": "",
            "BY": "",
            "WITHOUT": "normal-pcr+",
            "RELABEL": "normal,pneumonia=N",
            "LUNGS": "lungs",
            "BATCH": "4",
        },
        [*SDNET, *["train"] * 3, "fuse", "audit", *["evaluate"] * 5, "compare", "explain", "report"],
    ),
]


def without_unused(name, values):
    return {key: value for key, value in values.items() if read_recipe(name).has(key)}


@needs_make
@pytest.mark.parametrize(("name", "changes", "chain"), CHAINS)
def test_every_recipe_calls_the_same_in_all_its_forms(recorder, cluster, name, changes, chain):
    (recorder / "warned").touch()
    values = without_unused(name, {**RECORDED, **changes})
    call(["sh", f"{name}.sh"], recorder, **values)
    by_shell = calls(recorder)
    assert [line.split("|")[0] for line in by_shell] == chain
    call(["make", "-f", f"{name}.mk", *(f"{key}={value}" for key, value in values.items())], recorder)
    assert sorted(calls(recorder)) == sorted(by_shell)
    call(["bash", f"{name}.slurm"], recorder, **cluster, **values)
    by_slurm = calls(recorder)
    system = read_recipe(name)
    several = [values.get(key, system.value(key)) if system.has(key) else "" for key in ("FOLDS", "REPEATS")]
    folds, repeats = (int(text or 1) for text in several)
    # All but the thumbnail are tasks of an array, fold by fold.
    only = [re.search(r"\|--only\|(\w+)\|", line) for line in by_slurm]
    trainings = chain.count("train") - 1 + chain.count("fit")
    expected = sorted([f"r{r}f{f}" for r in range(repeats) for f in range(folds)] * trainings)
    assert sorted(match[1] for match in only if match) == expected
    assert {line.replace("||", "|") for line in by_shell} == {
        re.sub(r"\|--only\|\w+\|", "|", line).replace("||", "|") for line in by_slurm
    }


def test_the_branches_of_vgg16_portable_share_their_division_and_are_shown_on_the_whole(recorder):
    values = without_unused("vgg16-portable", {**RECORDED, "PER_CLASS": "20", "LUNGS": "my-lungs"})
    call(["sh", "vgg16-portable.sh"], recorder, **values)
    lines = calls(recorder)
    assert lines[1:5] == [
        "select|vgg16-portable/prepared|--per-class|20|--seed|0|-o|vgg16-portable/selected.csv|",
        "split|vgg16-portable/selected.csv|--holdout|75/25|--seed|0|-o|vgg16-portable/splits.csv|",
        "segment|vgg16-portable/selected.csv|--lungs|my-lungs|-o|vgg16-portable/branches/whole|",
        "segment|vgg16-portable/selected.csv|--lungs|my-lungs|--apply-mask|-o|vgg16-portable/branches/segmented|",
    ]
    trained = [line for line in lines if "--preset|vgg16-portable|" in line]
    assert [line.split("|")[1] for line in trained] == [f"vgg16-portable/branches/{b}" for b in ("whole", "segmented")]
    assert all("|--splits|vgg16-portable/splits.csv|" in line for line in trained)
    whole, segmented = (line for line in lines if line.startswith("explain|"))
    assert all("|vgg16-portable/branches/whole|--over|original|" in line for line in (whole, segmented))
    assert "|--beside|vgg16-portable/heatmaps/whole|" in segmented


def test_covid_xnet_enhances_fold_by_fold_and_searches_where_it_is_told(recorder):
    values = without_unused("covid-xnet", {**RECORDED, "BUDGET": "4", "KERNELS": "all", "RIBS": "my-ribs"})
    call(["sh", "covid-xnet.sh"], recorder, **values)
    lines = calls(recorder)
    assert "|--one-per|patient_id|--one-per-except|covid|--seed|0|-o|covid-xnet/selected.csv|" in lines[1]
    assert lines[2] == "split|covid-xnet/selected.csv|--folds|5|--validation|0.1|--seed|0|-o|covid-xnet/splits.csv|"
    assert lines[4] == (
        "enhance|covid-xnet/lungs|--steps|match-histogram,suppress-ribs,clahe|--splits|covid-xnet/splits.csv|"
        "--ribs|my-ribs|-o|covid-xnet/enhanced|"
    )
    (search,) = (line for line in lines if "--grid" in line)
    assert "|--preset|covid-xnet|" in search
    assert "|--grid|kernels=5,5,5,3,3|all|--budget|4|" in search
    compare, explain = (next(line for line in lines if line.startswith(name)) for name in ("compare|", "explain|"))
    assert "|covid-xnet/runs/covid-xnet|covid-xnet/runs/search|covid-xnet/runs/thumbnail|--baseline|" in compare
    assert "|--method|cam|--target|covid|--inside-lungs|--scale|run|--over|original|" in explain


def test_the_generators_of_a_fold_are_there_before_its_twins_are_trained(recorder, cluster):
    (recorder / "warned").touch()
    values = without_unused("covid-sdnet", {**RECORDED, "REPEATS": "1", "FOLDS": "2", "BASELINES": "pepx"})
    told = call(["bash", "covid-sdnet.slurm"], recorder, **cluster, **values)
    # Generators, one baseline and two branches; then the twins; two folds each.
    assert told.stdout == "submitted 1, then 2 with 8 tasks, then 3 with 2 tasks, then 4\n"
    submitted = (recorder / "submitted").read_text().splitlines()
    assert "--dependency=afterok:2 --array=0-1 covid-sdnet.slurm array 2" in submitted[2]
    lines = calls(recorder)
    twins = [line for line in lines if "--transform" in line]
    assert [re.search(r"--only\|(\w+)", line)[1] for line in twins] == ["r0f0", "r0f1"]
    assert max(lines.index(line) for line in lines if line.startswith("fit|")) < lines.index(twins[0])
    assert all("|--transform|covid-sdnet/runs/fucitnet|--preset|covid-sdnet|" in line for line in twins)


def test_covid_sdnet_leaves_a_stratum_out_of_all_and_names_the_paper_s_table_of_it(recorder):
    values = without_unused("covid-sdnet", {**RECORDED, "WITHOUT": "normal-pcr+", "SIZE": "", "EPOCHS": ""})
    call(["sh", "covid-sdnet.sh"], recorder, **values)
    lines = calls(recorder)
    assert lines[1] == (
        "select|covid-sdnet/prepared|--where|1|--exclude|severity=normal-pcr+|"
        "--per-class|smallest|--seed|0|-o|covid-sdnet/selected.csv|"
    )
    assert lines[2].startswith("split|covid-sdnet/selected.csv|--folds|5|--repeats|5|--validation|0.1|")
    assert lines[4] == "segment|covid-sdnet/selected.csv|--crop|--margin|0.025|-o|covid-sdnet/branches/segmented|"
    assert not [line for line in lines if "--size" in line or "--epochs" in line]
    compare = next(line for line in lines if line.startswith("compare|"))
    assert "|--baseline|covid-sdnet/fused/covid-sdnet.csv|--positive|P|" in compare
    assert "|--published|covid-sdnet-without-normal-pcr|" in compare
    fused = next(line for line in lines if line.startswith("evaluate|covid-sdnet/fused"))
    assert "|--by|severity|--positive|P|" in fused


def test_portable_densenet161_draws_b_inside_a_and_tests_it_twice(recorder):
    changes = {"PATHOLOGICAL": "viral,bacterial", "PRIOR": "yes", "REPEATS": "5"}
    call(["sh", "portable-densenet161.sh"], recorder, **without_unused("portable-densenet161", {**RECORDED, **changes}))
    lines = [line.replace("portable-densenet161/", "") for line in calls(recorder)]
    assert lines[2] == (
        "select|lungs|--where|1|--relabel|normal=normal|--relabel|viral,bacterial=pathological|"
        "--relabel|covid=covid|-o|manifests/direct.csv|"
    )
    assert lines[5] == "split|manifests/direct.csv|--holdout|60/20/20|--repeats|5|--seed|0|-o|splits/direct.csv|"
    within = "split|manifests/direct.csv|--within|splits/direct.csv|--equal|label|"
    assert lines[6:8] == [within + "--keep|test|--seed|0|-o|splits/b.csv|", within + "--seed|0|-o|splits/balanced.csv|"]
    trained = {re.search(r"-o\|runs/(\w+)", line)[1]: line for line in lines if line.startswith("train|")}
    assert list(trained) == ["thumbnail", "a", "b", "direct"]
    for name, manifest, splits in (("a", "a", "direct"), ("b", "b", "b"), ("direct", "direct", "direct")):
        assert trained[name].startswith(f"train|manifests/{manifest}.csv|--splits|splits/{splits}.csv|--preset|")
    joint = "fuse|joint|runs/a|runs/b|--rule|{0}|--on-conflict|prob|--prior-correct|-o|fused/{0}.csv|"
    assert [line for line in lines if line.startswith("fuse|")] == [joint.format(r) for r in ("product", "nested")]
    assert "evaluate|runs/b|--within|splits/balanced.csv|--positive|covid|-o|evaluations/b-balanced|" in lines
    assert "evaluate|runs/b|--positive|covid|-o|evaluations/b|" in lines
    assert [line for line in lines if line.startswith("explain|")] == [
        "explain|runs/a|manifests/a.csv|-o|heatmaps/a|",
        "explain|runs/b|manifests/b.csv|--beside|heatmaps/a|-o|heatmaps/b|",
    ]


@pytest.mark.slow
@needs_make
def test_the_shell_script_makes_the_same(made, tmp_path, cxr):
    lay(tmp_path, cxr, "sh")
    call(["sh", "makris.sh"], tmp_path, **VALUES)
    assert tree(tmp_path / "makris") == tree(made / "makris")


SBATCH = """#!/bin/bash
# A cluster of one machine: a job runs at once, and again when it asked for it.
array="" ; args=()
for word in "$@"; do
    case $word in --array=*) array=${word#--array=0-} ;; --*) ;; *) args+=("$word") ;; esac
done
id=$(( $(cat jobs 2>/dev/null || echo 0) + 1 )) ; echo "$id" > jobs
echo "$id $*" >> submitted
for task in $(seq 0 "${array:-0}"); do
    while :; do
        rm -f again
        code=0
        SLURM_ARRAY_JOB_ID=$id SLURM_ARRAY_TASK_ID=$task bash "${args[@]}" >> log 2>&1 || code=$?
        [ -e again ] || break
    done
    [ "$code" -eq 0 ] || { echo "task $task of job $id ended with $code" >&2; exit 1; }
done
echo "$id"
"""
SRUN = """#!/bin/bash
# The first task is told once that its time is up.
if [ ! -e warned ]; then touch warned; exit 75; fi
exec "$@"
"""
SCONTROL = """#!/bin/bash
echo "$*" >> requeued; touch again
"""


@pytest.fixture
def cluster(recorder):
    """The environment of a pretended cluster."""
    if shutil.which("bash") is None:
        pytest.skip("no bash on this machine")
    tools = recorder / "bin"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scontrol", SCONTROL)):
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    return {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}


def test_the_script_for_slurm_submits_and_asks_to_be_queued_again(recorder, cluster):
    told = call(["bash", "makris.slurm"], recorder, **cluster, **RECORDED)
    assert told.stdout == "submitted 1, then 2 with 2 tasks, then 3\n"
    submitted = (recorder / "submitted").read_text().splitlines()
    assert "--dependency=afterok:1 --array=0-1 makris.slurm array" in submitted[1]
    assert "--dependency=afterok:2" in submitted[2]
    assert (recorder / "requeued").read_text() == "requeue 2_0\n"
    by_slurm = [line.replace("|--only|r0f0", "") for line in calls(recorder)]
    call(["sh", "makris.sh"], recorder, **RECORDED)
    assert by_slurm == calls(recorder)


def test_folds_are_tasks_of_their_own(recorder, cluster):
    (recorder / "warned").touch()
    told = call(["bash", "makris.slurm"], recorder, **cluster, **{**RECORDED, "FOLDS": "2"})
    assert told.stdout == "submitted 1, then 2 with 4 tasks, then 3\n"
    trainings = [line for line in calls(recorder) if "--only" in line]
    found = [re.search(r"--model\|(\w+)\|.*--only\|(\w+)\|", line).groups() for line in trainings]
    assert found == [(network, f"r0f{fold}") for network in NETWORKS for fold in (0, 1)]


def test_a_task_that_fails_is_not_queued_again(recorder, cluster):
    (recorder / "warned").touch()
    (recorder / "record").write_text('#!/bin/sh\n[ "$1 $6" != "train makris" ]\n')
    task = {"SLURM_ARRAY_TASK_ID": "0", "SLURM_ARRAY_JOB_ID": "1"}
    around = {**environment(recorder), **cluster, **RECORDED, **task}
    told = subprocess.run(["bash", "makris.slurm", "array"], cwd=recorder, env=around)
    assert told.returncode == 1
    assert not (recorder / "requeued").exists()


@pytest.mark.slow
@needs_make
def test_the_script_for_slurm_makes_the_same(made, recorder, cluster):
    call(["bash", "makris.slurm"], recorder, **cluster, **VALUES)
    assert tree(recorder / "makris") == tree(made / "makris")


def lay_parts(place):
    """A lung network that calls the middle of every picture lung, and a rib network of small pictures."""
    import torch

    from cxrtool.imaging.fits import Form
    from cxrtool.models.parts import networks, save_part

    torch.manual_seed(0)
    for kind, invert in (("lungs", False), ("ribs", True)):
        name = next(iter(networks(kind)))
        network = networks(kind)[name].build()
        save_part(place / kind, kind, name, network, Form(64, "pad" if invert else "squash", invert=invert), {})


@pytest.mark.slow
@needs_make
@pytest.mark.parametrize("name", ["vgg16-portable", "covid-xnet"])
def test_a_recipe_runs_from_raw_pictures_to_its_tables_and_maps(tmp_path, cxr, name):
    lay(tmp_path, cxr, "make", name)
    lay_parts(tmp_path)
    small = {"LUNGS": "lungs", "RIBS": "ribs", "PIXELS": "64", "FOLDS": "2", "BUDGET": "2", "PER_CLASS": "8"}
    values = without_unused(name, {**VALUES, **small})
    command = ["make", "-f", f"{name}.mk", *(f"{key}={value}" for key, value in values.items())]
    told = call(command, tmp_path)
    out = tmp_path / name
    tables = (out / "comparison" / "tables.md").read_text()
    assert "(printed)" in tables
    assert "seconds" in tables
    if name == "covid-xnet":
        tried = read_table(out / "runs" / "search" / "grid.csv").rows
        assert sorted((row["fold"], row["chosen"]) for row in tried) == sorted(
            (fold, said) for fold in "01" for said in ("no", "yes")
        )
        assert {row["kernels"] for row in tried} >= {"5,5,5,3,3"}
        assert (out / "evaluations" / "covid-xnet" / "roc.png").exists()
        assert "## Each fold" in (out / "evaluations" / "covid-xnet" / "tables.md").read_text()
        maps = read_table(out / "heatmaps" / "manifest.csv").rows
        # Every image was tested in one fold, and is shown as it was before it was enhanced.
        assert len(maps) == 30
        assert all("/prepared/" in str((out / "heatmaps" / row["path"]).resolve()) for row in maps)
    else:
        whole, segmented = (
            read_table(out / "heatmaps" / branch / "manifest.csv").rows for branch in ("whole", "segmented")
        )
        assert [row["image_id"] for row in whole] == [row["image_id"] for row in segmented]
        assert len(whole) == 24
        assert "energy inside the masks: " in told.stderr
    before = times(out)
    call(command, tmp_path)
    # What `select` and `split` write anew has the same bytes.
    changed = {path for path, when in times(out).items() if when != before.get(path)}
    assert not changed


@pytest.mark.slow
@needs_make
@pytest.mark.parametrize("name", ["portable-densenet161", "covid-sdnet"])
def test_what_is_fused_goes_from_raw_pictures_to_tables_and_maps(tmp_path, cxr, name):
    lay(tmp_path, cxr, "make", name)
    lay_parts(tmp_path)
    small = {
        "LUNGS": "lungs",
        "PATHOLOGICAL": "pneumonia",
        "POSITIVE": "covid",
        "RELABEL": "normal,pneumonia=N",
        "BY": "",
        "SIZE": "64",
        "REPEATS": "1",
        "FOLDS": "2",
        "BATCH": "8",
        "PERCEPTUAL": "none",
        "BASELINES": "pepx",
    }
    values = without_unused(name, {**VALUES, **small})
    command = ["make", "-f", f"{name}.mk", *(f"{key}={value}" for key, value in values.items())]
    told = call(command, tmp_path, 3 * TIMEOUT)
    out = tmp_path / name
    tables = (out / "comparison" / "tables.md").read_text()
    if name == "covid-sdnet":
        runs = ["covid-sdnet *", "whole", "segmented", "fucitnet", "pepx", "thumbnail"]
        assert "COVID-SDNet (printed)" in tables
        assert len(read_table(out / "fused" / "covid-sdnet.csv").rows) >= 30
        assert len(read_table(out / "heatmaps" / "manifest.csv").rows) >= 30
    else:
        runs = ["joint-product", "joint-nested", "direct *", "thumbnail"]
        assert "(printed)" in (out / "beside-paper" / "b" / "tables.md").read_text()
        assert "conflicts (A normal, B covid): " in told.stderr
        first, second = (read_table(out / "heatmaps" / network / "manifest.csv").rows for network in "ab")
        assert [row["image_id"] for row in first] == [row["image_id"] for row in second]
    assert all(f"| {run} |" in tables for run in runs)
    before = times(out)
    call(command, tmp_path, 3 * TIMEOUT)
    assert not {path for path, when in times(out).items() if when != before.get(path)}


def test_recipe_prints_lists_and_estimates(cxr, study):
    listed = cxr("recipe")
    assert (listed.code, listed.err) == (0, "")
    shown = [line.split("  ")[0] for line in listed.out.splitlines()[2:]]
    assert shown == names() == ["covid-sdnet", "covid-xnet", "makris", "portable-densenet161", "vgg16-portable"]
    printed = cxr("recipe", "makris", "EPOCHS=4")
    assert "\nEPOCHS ?= 4\n" in printed.out
    assert cxr("recipe", "makris").out != printed.out
    guess = cxr(
        "recipe",
        "makris",
        f"DATA={study.folder}/manifest.csv",
        "NETWORKS=lcnet_035",
        "SIZE=32",
        "EPOCHS=2",
        "--estimate",
        "--threads",
        "1",
        "--device",
        "cpu",
    )
    assert guess.code == 0, guess.err
    assert guess.out.startswith("24 images of 2 classes; 10 commands, 2 trainings")
    assert "rough estimate" in guess.out
