from dataclasses import replace

import pytest

from cxrtool.commands.recipe import estimate as module
from cxrtool.commands.recipe.estimate import GPUS, Estimate, Row, Slope, division, estimate, seconds_a_step
from cxrtool.commands.recipe.system import names, read_recipe
from cxrtool.errors import InputError, UsageError

SMALL = ("SIZE=32", "NETWORKS=lcnet_035 mobilenetv2_035", "BATCH=4", "EPOCHS=3")

EVERYTHING = {
    "covid-sdnet": ("WITHOUT=normal-pcr+", "UNTRAINED=mild", "REPEATS=3", "FOLDS=2"),
    "covid-xnet": ("BUDGET=8", "FOLDS=2"),
    "vgg16-portable": ("OPTIMIZERS=sgd rmsprop",),
}
"""Values with which every step of a recipe is done."""


@pytest.fixture
def here(settings):
    return replace(settings, threads=1, device="cpu")


@pytest.fixture
def counted(study, here, monkeypatch):
    """Estimate without measuring; the designs whose step would have been timed."""
    designs = []
    monkeypatch.setattr(module, "seconds_a_step", lambda design: designs.append(design) or 0.5)
    slopes = lambda system, listed, settings: (  # noqa: E731
        {call.name: Slope(0.1, 1000.0) for call in system.calls() if call.command != "train"},
        [],
    )
    monkeypatch.setattr(module, "measure_slopes", slopes)

    def count(name, *values):
        del designs[:]
        return estimate(read_recipe(name, (f"DATA={study.folder / 'manifest.csv'}", *values)), here), designs

    return count


@pytest.mark.parametrize("name", names())
def test_every_step_of_the_chain_is_in_the_estimate(counted, name):
    values = EVERYTHING.get(name, ())
    system = read_recipe(name, values)
    found, _ = counted(name, *values)
    steps = [row.step for row in found.rows]
    assert len(steps) == len(set(steps)) == len(system.calls())
    assert {step.name for step in system.steps} == {call.step.name for call in system.calls()}
    assert all(any(line[0] == row.step for line in found.table()[1]) for row in found.rows)
    assert all(any(line[0] == row.step for line in found.extrapolated()[1]) for row in found.rows)


def test_images_trainings_and_steps_are_counted(counted):
    found, designs = counted("makris", *SMALL)
    assert (found.images, found.classes) == (24, 2)
    # 24 x 0.8 images in batches of 4 are five steps; the thumbnail has batches of 64 and 400 epochs of its own.
    trained = {row.step: (row.what, row.runs, row.units(24)) for row in found.rows if row.trains}
    assert trained["train lcnet_035"] == ("lcnet_035", 1, 15)
    assert trained["train mobilenetv2_035"] == ("mobilenetv2_035", 1, 15)
    assert trained["thumbnail"][:2] == ("thumbnail", 1)
    assert next(row for row in found.rows if row.step == "train lcnet_035").hours(24) == 15 * 0.5 / 3600
    networks = {design.architecture.name: design for design in designs}
    assert networks["lcnet_035"].freeze
    assert networks["lcnet_035"].weights == "none"
    assert networks["lcnet_035"].recipe.batch_size == 4
    assert networks["lcnet_035"].augmentation.rotate == 30
    folds, designs = counted("makris", *SMALL, "FOLDS=3", "WEIGHTS=none")
    assert {row.runs for row in folds.rows if row.trains} == {3}
    assert not any(design.freeze for design in designs)


def test_generators_baselines_searches_and_twins_are_counted(counted):
    found, designs = counted("covid-sdnet", *EVERYTHING["covid-sdnet"])
    rows = {row.step: row for row in found.rows}
    # 12 of 24 images, a tenth of which is for validation; two twins of each.
    fitted = rows["fit"]
    assert (fitted.what, fitted.runs, fitted.epochs, fitted.trains) == ("fit generators", 6, 50, True)
    assert fitted.share == pytest.approx(0.45)
    assert rows["twins"].share == pytest.approx(0.9)
    assert rows["twins"].bytes == 2 * 3 * 224 * 224
    assert [rows[f"baseline {name}"].what for name in ("covid-caps", "pepx")] == ["covid-caps", "pepx"]
    assert rows["twins-untrained untrained"].runs == 6
    assert next(design for design in designs if design.architecture.classes == 4).architecture.hidden == 512
    swept, _ = counted("covid-sdnet", "LOSS_WEIGHT=sweep", "REPEATS=1", "FOLDS=2", "EPOCHS=2")
    fitted = next(row for row in swept.rows if row.step == "fit")
    assert (fitted.runs, fitted.epochs) == (2 * 13, 2)
    searched, _ = counted("covid-xnet", "BUDGET=8", "FOLDS=2")
    assert next(row for row in searched.rows if row.step == "search search").runs == 16
    optimised, designs = counted("vgg16-portable", "OPTIMIZERS=sgd rmsprop")
    assert [row.step for row in optimised.rows if row.step.startswith("optimizers")] == [
        "optimizers sgd",
        "optimizers rmsprop",
    ]
    assert {design.recipe.opt for design in designs} >= {"sgd", "rmsprop"}


def test_what_needs_trained_models_has_slopes_of_tested_images(counted):
    found, _ = counted("covid-sdnet", *EVERYTHING["covid-sdnet"])
    rows = {row.step: row for row in found.rows}
    assert not any(row.reason for row in found.rows)
    # Each of the 24 images is tested once in each of three repeats.
    assert {row.units(24) for name, row in rows.items() if name.startswith(("evaluate", "fuse", "report"))} == {72}
    assert rows["audit"].units(24) == 24
    # What was fused counts once, like each of the six other runs.
    assert rows["compare"].units(24) == 7 * 72
    twins = rows["twins"]
    assert rows["explain"].seconds == module.AFTER["explain"].seconds + twins.seconds / twins.batch
    joint, _ = counted("portable-densenet161", "REPEATS=5")
    rows = {row.step: row for row in joint.rows}
    # A fifth is tested; two runs are joined, and their joint answers are evaluated.
    assert rows["joint product"].units(24) == 48
    assert rows["evaluate-joint product"].units(24) == 24
    assert set(module.AFTER) == {row.what for row in found.rows + joint.rows} & set(module.AFTER)


def test_a_division_within_another_has_its_folds():
    calls = read_recipe("portable-densenet161", ("REPEATS=2",)).calls()
    splits = [call.options["--splits"] for call in calls if call.command == "train"]
    assert [division(calls, path) for path in dict.fromkeys(splits)] == [(2, 0.6, 0.4), (2, 0.6, 0.4)]


def test_a_shell_s_words():
    system = read_recipe("covid-xnet", ("WHERE=view = 'PA' and age > \"3\"", "ONE_PER="))
    words = next(call.words for call in system.calls() if call.command == "select")
    assert words[words.index("--where") + 1] == "view = 'PA' and age > \"3\""
    assert words[words.index("--one-per") + 1] == ""
    assert not any(word == ">" for call in system.calls() for word in call.words)


def test_a_step_is_measured(study, here, monkeypatch):
    monkeypatch.setattr(module, "measure_slopes", lambda system, *_: ({c.name: Slope() for c in system.calls()}, []))
    told = f"DATA={study.folder / 'manifest.csv'}"
    found = estimate(read_recipe("makris", (told, *SMALL, "WEIGHTS=none")), here)
    assert all(0 < row.seconds < 10 for row in found.rows if row.trains)


def test_commands_before_the_trainings_are_called_on_samples(study, here, monkeypatch):
    """The real commands of the chain, in this process; what needs a model stays open."""
    from cxrtool.cli.main import run

    monkeypatch.setattr(module, "SAMPLES", (8, 24))
    monkeypatch.setattr(module, "seconds_a_step", lambda design: 0.5)
    lines = []

    def call(line, report=None):
        lines.append(line)
        return run([*line, *(["--workers", "1"] if line[0] == "prepare" else [])])

    values = (f"DATA={study.folder / 'manifest.csv'}", *SMALL)
    found = estimate(read_recipe("makris", values), replace(here, call=call))
    rows = {row.step: row for row in found.rows}
    assert [line[0] for line in lines] == ["prepare", "split"] * 3
    assert rows["prepare"].bytes > 100
    assert rows["prepare"].seconds or rows["prepare"].reason == module.TOO_SHORT
    assert all(rows[name].seconds for name in ("audit", "compare", "report thumbnail"))
    few = estimate(read_recipe("makris", values), replace(here, call=lambda line, report=None: 1))
    reasons = {row.step: row.reason for row in few.rows}
    assert (reasons["prepare"], reasons["split"]) == ("not timed: code 1", "not timed: its input is missing")


def test_the_first_step_does_not_count(monkeypatch):
    from types import SimpleNamespace

    from cxrtool.training import fitting

    clock = iter([100.0, 103.0, 105.0, 109.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))

    def fit_fold(*args, stop, **more):
        for _ in range(4):
            assert stop() is None

    monkeypatch.setattr(fitting, "fit_fold", fit_fold)
    monkeypatch.setattr(module, "replace", lambda thing, **changes: thing)
    design = SimpleNamespace(architecture=SimpleNamespace(size=8, classes=2), recipe=SimpleNamespace(batch_size=2))
    assert seconds_a_step(design) == 2.0


def make_rows():
    trained = Row("train vgg16", "vgg16", 5, "step", 0.36, 10, 0.8, 8, 50176.0, trains=True)
    return [
        Row("prepare", "prepare", seconds=0.036, bytes=1e6),
        trained,
        Row("audit", "audit", reason="after trainings"),
    ]


def test_the_tables_say_what_they_are_worth():
    found = Estimate(1000, 3, "cpu, 2 threads", False, make_rows(), ["And this."])
    total, worth = found.sentences()
    assert total == "1000 images of 3 classes; 3 commands, 5 trainings"
    assert "rough estimate" in worth
    assert "cpu, 2 threads" in worth
    assert worth.endswith("And this.\n")
    columns, lines = found.table()
    assert columns[-2:] == ["time", "disk"]
    # 1000 x 0.036 s; five runs of 1000 steps; no time; their sum.
    assert [line[-2] for line in lines] == ["under a minute", "30 min", "open", "31 min"]
    assert [line[-1] for line in lines] == ["1.0 GB", "50.2 MB", "", "1.1 GB"]


def test_a_million_images_on_gpus():
    columns, lines, title = Estimate(1000, 3, "cpu, 2 threads", False, make_rows()).extrapolated()
    assert columns[2:4] == ["time, 1 GPU", "time, 8 GPUs"]
    assert "extrapolated" in title
    assert "there is no GPU here" in title
    # Without a GPU nothing is said of trainings there.
    assert [line[2:4] for line in lines] == [["10.0 h"] * 2, ["open"] * 2, ["open"] * 2, ["10.0 h"] * 2]
    assert lines[1][4:] == ["50.2 GB", "50.2 GB"]
    _, lines, title = Estimate(1000, 3, "cuda", True, make_rows()).extrapolated()
    assert "no GPU" not in title
    # Five runs of 1,000,000 steps; eight GPUs do them at once, and one run is never shared.
    assert lines[1][2:4] == ["500.0 h", "100.0 h"]
    assert GPUS == (1, 8)


def test_wrong_numbers_and_missing_data_are_told(here, tmp_path):
    with pytest.raises(InputError):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'none'}",)), here)
    (tmp_path / "m.csv").write_text("path,label\na.png,x\nb.png,y\n")
    with pytest.raises(UsageError, match="--epochs: expected a whole number above 0, found 'many'"):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'm.csv'}", "EPOCHS=many")), here)
    with pytest.raises(UsageError, match="--model"):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'm.csv'}", "NETWORKS=vgg17")), here)
