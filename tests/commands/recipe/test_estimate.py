from dataclasses import replace

import pytest

from cxrtool.commands.recipe import estimate as module
from cxrtool.commands.recipe.estimate import Estimate, Row, estimate, seconds_a_step
from cxrtool.commands.recipe.system import read_recipe
from cxrtool.errors import InputError, UsageError

SMALL = ("SIZE=32", "NETWORKS=lcnet_035 mobilenetv2_035", "BATCH=4", "EPOCHS=3")


@pytest.fixture
def here(settings):
    return replace(settings, threads=1, device="cpu")


def test_images_trainings_and_steps_are_counted(study, here, monkeypatch):
    designs = []
    monkeypatch.setattr(module, "seconds_a_step", lambda design: designs.append(design) or 0.5)
    told = f"DATA={study.folder / 'manifest.csv'}"
    found = estimate(read_recipe("makris", (told, *SMALL)), here)
    assert (found.images, found.classes, found.epochs, found.size) == (24, 2, 3, 32)
    # 24 x 0.8 images in batches of 4 are five steps.
    assert [(row.network, row.trainings, row.steps) for row in found.rows] == [
        ("lcnet_035", 1, 15),
        ("mobilenetv2_035", 1, 15),
    ]
    assert found.rows[0].hours == 15 * 0.5 / 3600
    assert all(design.freeze and design.weights == "none" for design in designs)
    assert designs[0].recipe.batch_size == 4
    assert designs[0].augmentation.rotate == 30
    folds = estimate(read_recipe("makris", (told, *SMALL, "FOLDS=3", "WEIGHTS=none")), here)
    assert [(row.trainings, row.steps) for row in folds.rows] == [(3, 12), (3, 12)]
    assert not designs[-1].freeze


def test_a_step_is_measured(study, here):
    told = f"DATA={study.folder / 'manifest.csv'}"
    found = estimate(read_recipe("makris", (told, *SMALL, "WEIGHTS=none")), here)
    assert all(0 < row.seconds < 10 for row in found.rows)


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


def test_the_table_says_what_it_is_worth():
    rows = [Row("vgg16", 5, 1000, 0.36), Row("lcnet_035", 5, 1000, 0.001)]
    found = Estimate(300, 3, 35, 8, 224, "cpu, 2 threads", rows)
    total, worth = found.sentences()
    assert total == "300 images of 3 classes; 10 trainings of 35 epochs at 224 x 224 pixels"
    assert "rough estimate" in worth
    assert "cpu, 2 threads" in worth
    columns, lines = found.table()
    assert columns[-1] == "time"
    assert [line[-1] for line in lines] == ["30 min", "under a minute", "30 min"]


def test_wrong_numbers_and_missing_data_are_told(here, tmp_path):
    with pytest.raises(InputError):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'none'}",)), here)
    (tmp_path / "m.csv").write_text("path,label\na.png,x\nb.png,y\n")
    with pytest.raises(UsageError, match="EPOCHS: expected a whole number above 0, found 'many'"):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'm.csv'}", "EPOCHS=many")), here)
    with pytest.raises(UsageError, match="--model"):
        estimate(read_recipe("makris", (f"DATA={tmp_path / 'm.csv'}", "NETWORKS=vgg17")), here)


def test_repeats_count_and_empty_variables_are_what_the_preset_states(study, here, monkeypatch):
    designs = []
    monkeypatch.setattr(module, "seconds_a_step", lambda design: designs.append(design) or 0.5)
    told = f"DATA={study.folder / 'manifest.csv'}"
    found = estimate(read_recipe("covid-sdnet", (told, "REPEATS=3", "FOLDS=2")), here)
    assert (found.epochs, found.batch_size, found.size) == (50, 16, 224)
    # The network without and with the crop, and on twice as many twins: 12 of 24 images are one step.
    assert [(row.network, row.trainings, row.steps) for row in found.rows] == [("resnet50", 4 * 6, 50)]
    assert designs[0].architecture.hidden == 512
    assert "generators" in found.sentences()[1].splitlines()[-1]
    small = estimate(read_recipe("covid-sdnet", (told, "EPOCHS=2", "BATCH=4", "SIZE=64", "REPEATS=1")), here)
    assert (small.epochs, small.batch_size, small.size, small.rows[0].trainings) == (2, 4, 64, 20)
    portable = estimate(read_recipe("portable-densenet161", (told, "REPEATS=2")), here)
    # 24 x 0.6 images in batches of 4.
    assert [(row.network, row.trainings, row.steps) for row in portable.rows] == [("densenet161", 6, 200 * 4)]
    assert "B is trained on fewer" in portable.sentences()[1]
