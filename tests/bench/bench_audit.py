"""The probes of an audit: a classifier for every permutation of the labels, and memory as the set grows.

What a user would write instead is scikit-learn's logistic regression on the same thumbnails, fitted anew for every
labelling. Here one fold is solved once for all of them. Both have the same pictures and folds, in turns; the logistic
regression is given few labellings, and its time for all is what those take, as many times over.
"""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from cxrtool.auditing import alarm, classifier

IMAGES, FOLDS, PERMUTATIONS, TRIED = 300, 5, 200, 2


@pytest.mark.bench
def test_a_probe_with_all_labellings_against_logistic_regression(in_turns):
    rng = np.random.default_rng(0)
    features = rng.random((IMAGES, 64 * 64), np.float32)
    labels, patients = np.arange(IMAGES) % 3, np.arange(IMAGES)
    runs = [
        alarm.Run("0", str(fold), np.flatnonzero(patients % FOLDS != fold), np.flatnonzero(patients % FOLDS == fold))
        for fold in range(FOLDS)
    ]
    labellings = alarm.permute_labels(labels, patients, PERMUTATIONS, 0)

    def ours():
        alarm.run_probe(features, "linear", labellings, patients, runs, 3)

    def theirs():
        for run in runs:
            scaled = StandardScaler().fit(features[run.train])
            for column in range(TRIED):
                model = LogisticRegression(max_iter=200)
                model.fit(scaled.transform(features[run.train]), labellings[run.train, column])
                model.predict(scaled.transform(features[run.test]))

    own, few = in_turns(ours, theirs, rounds=2)
    other = few / TRIED * (1 + PERMUTATIONS)
    print(
        f"\na probe, {FOLDS} folds, {1 + PERMUTATIONS} labellings of {IMAGES} images: {own:.1f} s here, "
        f"{other:.0f} s by logistic regression, {other / own:.0f} times as fast"
    )


@pytest.mark.bench
def test_the_time_of_a_fold_stays_within_bounds_as_the_set_grows(in_turns):
    seconds = {}
    for images in (1000, 2000, 8000):
        rng = np.random.default_rng(0)
        features, patients = rng.random((images, 1000), np.float32), np.arange(images)
        train = np.flatnonzero(patients % 5 != 0)
        kept = classifier.sample(patients[train], rng)
        run = alarm.Run("0", "0", train[kept], np.flatnonzero(patients % 5 == 0))
        labellings = alarm.permute_labels(np.arange(images) % 3, patients, 20, 0)

        def ask(features=features, labellings=labellings, patients=patients, run=run):
            alarm.run_probe(features, "linear", labellings, patients, [run], 3)

        (seconds[images],) = in_turns(ask, rounds=1)
    told = ", ".join(f"{count} images {time:.1f} s" for count, time in seconds.items())
    print(f"\none fold of a probe, training on {classifier.MOST} images at most: {told}")
