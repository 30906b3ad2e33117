"""What chance alone would reach."""

from collections import Counter

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cxrtool.auditing import alarm
from cxrtool.auditing.alarm import Trial, level_of, permute_labels, run_probe, runs_of


def test_labels_are_dealt_to_whole_patients():
    patients = np.repeat(np.arange(30), 2)
    labels = np.repeat(np.arange(30) % 3, 2)
    dealt = permute_labels(labels, patients, 50, seed=1)
    assert dealt.shape == (60, 51)
    assert (dealt[:, 0] == labels).all()
    assert (dealt[::2] == dealt[1::2]).all()
    for column in dealt.T:
        assert Counter(column.tolist()) == Counter(labels.tolist())
    # Every patient gets every label in about a third of the dealings.
    assert abs((dealt[::2, 1:] == 0).mean() - 1 / 3) < 0.02
    assert len({tuple(column) for column in dealt.T}) == 51


def test_a_patient_of_several_labels_hands_them_on_in_their_order():
    patients = np.array([0, 1, 0, 1, 2, 2])
    labels = np.array([0, 2, 1, 2, 1, 0])
    pairs = {
        tuple(column[patients == patient].tolist())
        for column in permute_labels(labels, patients, 40, 0).T
        for patient in range(3)
    }
    assert pairs == {(0, 1), (2, 2), (1, 0)}


def test_an_image_without_a_class_takes_no_part():
    labels = np.array([0, -1, 1, 0, 1, -1])
    dealt = permute_labels(labels, np.arange(6), 20, 0)
    assert (dealt[[1, 5]] == -1).all()
    assert (dealt[[0, 2, 3, 4]] >= 0).all()


def test_the_level_is_had_from_the_best_of_all_probes():
    rng = np.random.default_rng(0)
    trials = [Trial(np.r_[0.9, rng.random(200)], [], []) for _ in range(3)]
    largest = sorted(max(trial.reached[i] for trial in trials) for i in range(1, 201))
    assert level_of(trials) == largest[198]
    assert level_of(trials) > level_of(trials[:1])


def test_reached_is_the_balanced_accuracy_of_all_folds_pooled_and_repeats_averaged(make_pictures, make_folds):
    pictures = make_pictures(90, ("a", "b", "c"))
    runs = runs_of(pictures, make_folds(pictures, 3, repeats=2), 0)
    features = np.random.default_rng(0).normal(size=(90, 6)) + pictures.numbers(["a", "b", "c"])[:, None] * 0.4
    labels = pictures.numbers(["a", "b", "c"])
    trial = run_probe(features, "linear", labels[:, None], pictures.patients, runs, 3)
    expected = []
    for repeat in ("0", "1"):
        own = [i for i, run in enumerate(runs) if run.repeat == repeat]
        truth = np.concatenate([labels[runs[i].test] for i in own])
        expected.append(balanced_accuracy_score(truth, np.concatenate([trial.predicted[i] for i in own])))
    assert trial.reached.tolist() == pytest.approx([np.mean(expected)])


def test_only_the_training_images_are_trained_on(make_pictures, make_folds):
    pictures = make_pictures(40)
    folds = make_folds(pictures, 2)
    for run, fold in zip(runs_of(pictures, folds, 0), folds, strict=True):
        assert run.train.tolist() == fold.subsets["train"]
        assert run.test.tolist() == fold.subsets["test"]


def test_the_nearest_image_gives_away_who_stands_on_two_sides(make_pictures, make_folds):
    pictures = make_pictures(40)
    values = np.repeat(np.random.default_rng(0).normal(size=(20, 50)), 2, axis=0)
    values += np.random.default_rng(1).normal(0, 0.01, values.shape)
    labellings = permute_labels(pictures.numbers(pictures.classes), pictures.patients, 200, 0)
    honest = runs_of(pictures, make_folds(pictures, 4), 0)
    leaking = [alarm.Run("0", "0", np.arange(0, 40, 2), np.arange(1, 40, 2))]
    assert alarm.nearest(values, labellings, leaking, 2) == pytest.approx(1)
    assert alarm.nearest(values, labellings, honest, 2)[1:].mean() == pytest.approx(0.5, abs=0.05)


def test_pictures_that_could_not_be_read_are_in_no_fold(make_pictures, make_folds):
    pictures = make_pictures(40)
    folds = make_folds(pictures, 2)
    readable = pictures.where(np.arange(40) % 4 != 0)
    for run in runs_of(readable, folds, 0):
        ids = {readable.rows[i]["image_id"] for i in (*run.train, *run.test)}
        assert len(ids) == len(run.train) + len(run.test)
        assert not any(int(name[2:]) % 4 == 0 for name in ids)
        assert not set(run.train.tolist()) & set(run.test.tolist())


def test_of_too_many_training_images_a_sample_is_drawn(make_pictures, make_folds, monkeypatch):
    monkeypatch.setattr(alarm.classifier, "MOST", 20)
    monkeypatch.setattr(alarm.classifier.sample, "__defaults__", (20,))
    pictures = make_pictures(60)
    run = runs_of(pictures, make_folds(pictures, 2), 0)[0]
    assert len(run.train) <= 20
    assert run.excluded > 0


def test_by_chance_one_set_in_a_hundred_raises_an_alarm(make_pictures, make_folds):
    """p values of sets that say nothing are uniform: 150 sets, of which at most four pass the level of 1 %."""
    passed, p = 0, []
    for seed in range(150):
        pictures = make_pictures(48, seed=seed)
        runs = runs_of(pictures, make_folds(pictures, 3, seed=seed), seed)
        labellings = permute_labels(pictures.numbers(pictures.classes), pictures.patients, 99, seed)
        features = pictures.thumbs[:, :3].reshape(48, -1), pictures.thumbs[:, -3:].reshape(48, -1)
        trials = [run_probe(part, "linear", labellings, pictures.patients, runs, 2) for part in features]
        best = np.max([trial.reached for trial in trials], axis=0)
        passed += bool(best[0] > level_of(trials))
        p.append((best >= best[0]).mean())
    assert passed <= 5
    assert 0.35 < np.mean(np.array(p) <= 0.5) < 0.65
