from dataclasses import replace

import pytest

from cxrtool.flow.replaying import STEPS
from cxrtool.reporting.limits import limits
from cxrtool.reporting.methods import CHANGES, LOSSES, Facts, augmentation_in_words, paragraphs
from cxrtool.training.options import SCHEDULES, WATCHED


def option(**values):
    return {name: {"value": value, "origin": "flag" if name == "size" else "preset"} for name, value in values.items()}


SUMMARY = {
    "classes": ["covid", "normal"],
    "positive": "covid",
    "runs": 10,
    "repeats": 2,
    "patients_known": True,
    "interval": {"confidence": 0.95, "resamples": 2000},
    "per_class": {"covid": {"support": 30}, "normal": {"support": 200}},
}

FACTS = Facts(
    images=230,
    patients=180,
    classes={"normal": 200, "covid": 30},
    sources={"a": 230},
    excluded=3,
    chain=[
        {"step": "prepare", "size": 256, "fit": "pad"},
        {"step": "segment", "use": "crop", "margin": 0.025, "margin_of": "image", "part": {"network": "unet"}},
        {"step": "clahe", "clip": 2.0, "tiles": 8},
    ],
    divided="Division. By hand.",
    run={
        "seed": 7,
        "machine": {"python": "3.11"},
        "options": option(
            model="resnet50",
            preset="covid-sdnet",
            size=64,
            epochs=30,
            batch_size=16,
            opt="sgd",
            lr=0.001,
            momentum=0.9,
            weight_decay=0.0,
            sched="step",
            decay_rate=0.1,
            decay_epochs=5,
            patience=10,
            checkpoint="best-loss",
            class_weights="balanced",
            augment="rotate=10,flip=0.5",
            freeze=False,
        ),
    },
    fold={
        "versions": {"torch": "2"},
        "training": {"parameters": 24_558_146, "trained_parameters": 1000, "device": "cpu"},
    },
    model={
        "architecture": {"name": "resnet50", "hidden": 512, "dropout": 0.5},
        "input": {"size": 64},
        "classes": ["covid", "normal"],
        "trained": {"weights": "drawn at random"},
    },
    summary=SUMMARY,
    folds=10,
    enhancing={name: step.describe for name, step in STEPS.items()},
)


def test_every_setting_is_told():
    text = "\n".join(paragraphs(FACTS))
    for told in (
        "230 chest radiographs of 180 patients: 200 normal and 30 covid",
        "3 images were excluded before",
        "256 x 256 pixels",
        "plus a margin of 2.5 % of the image's side",
        "clip limit 2, 8 x 8 tiles",
        "Division. By hand.",
        "24.6 million parameters, 1,000 of them trainable",
        "64 x 64 pixels",
        "2 classes (covid, normal)",
        "512 units",
        "Dropout was 0.5",
        "drawn at random",
        "preset covid-sdnet of cxrtool, except for size 64",
        "up to 30 epochs",
        "batches of 16",
        "stochastic gradient descent (momentum 0.9)",
        "a learning rate of 0.001, which was multiplied by 0.1 every 5 epochs",
        "weighted inversely to class frequency",
        "stopped after 10 epochs",
        "lowest validation loss",
        "rotation by up to ±10°",
        "pooled over the folds of a repeat and averaged over repeats",
        "2,000 resamples of patients",
        "The positive class was covid",
        "torch 2",
        "the seed was 7",
    ):
        assert told in text, told
    assert "None" not in text


def test_what_no_file_tells_is_left_to_the_author():
    alone = replace(
        FACTS, run={}, fold={}, model={}, chain=None, divided="", summary={**SUMMARY, "runs": 1, "repeats": 1}
    )
    text = "\n".join(paragraphs(alone))
    assert "[Describe the model and its training.]" in text
    assert "[Write where and when the images were taken" in text
    assert "pooled" not in text


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_makes_a_sentence(schedule):
    run = {**FACTS.run, "options": FACTS.run["options"] | option(sched=schedule)}
    text = next(line for line in paragraphs(replace(FACTS, run=run)) if line.startswith("Training."))
    assert "{" not in text
    assert SCHEDULES[schedule].words.split("{")[0].strip() in text


def test_watched_test_images_are_told_of():
    for watch in WATCHED:
        run = {**FACTS.run, "options": FACTS.run["options"] | option(watch=watch)}
        text = next(line for line in paragraphs(replace(FACTS, run=run)) if line.startswith("Training."))
        assert ("nothing was chosen by them" in text) == (watch == "test")


def test_the_losses_and_changes_are_those_of_training():
    from cxrtool.training.augment import Augmentation
    from cxrtool.training.classifier_losses import LOSSES as KNOWN

    # The loss of classes in an order is cross-entropy, of probabilities that another model gives.
    assert set(LOSSES) <= {*KNOWN, "cumulative"}
    assert {*CHANGES, "p"} == set(Augmentation.__dataclass_fields__)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"opt": "lion"}, "by lion (momentum 0.9) at a learning rate"),
        ({"sched": "poly"}, "which followed the schedule poly."),
        ({"checkpoint": "swa"}, "The checkpoint swa was kept."),
        ({"class_weights": "effective"}, "with the class weights effective."),
        ({"augment": "sharpen=0.3, flip=0.5,p=0.5"}, "augmented by sharpen 0.3 and horizontal flips with probability"),
    ],
)
def test_what_no_registry_knows_stands_as_it_is(changed, told):
    run = {**FACTS.run, "options": FACTS.run["options"] | option(**changed)}
    text = "\n".join(paragraphs(replace(FACTS, run=run)))
    assert told in text


def test_steps_that_are_not_known_stand_as_they_are():
    chain = [
        {"step": "prepare", "size": 256, "fit": "tile"},
        {"step": "segment", "use": "crop+blur", "part": {"network": "unet"}},
        {"step": "denoise"},
    ]
    text = "\n".join(paragraphs(replace(FACTS, chain=chain, loss="focal")))
    for told in ("by the fit tile", "the use blur was made of them", "The step denoise was applied", "loss was focal"):
        assert told in text


def test_an_augmentation_in_words():
    assert augmentation_in_words("zoom=0.1,p=0.5").endswith(
        "magnification by up to ±0.1, each with probability 0.5 (except flips)."
    )
    assert augmentation_in_words("flip=0") == "Training images were not augmented."
    assert augmentation_in_words("keras=1") == "Training images were not augmented."
    assert augmentation_in_words("zoom=0.2,flip=0.5,keras=1").endswith(
        "with probability 0.5, as by Keras' ImageDataGenerator (each axis magnified by itself)."
    )


def test_limits_follow_from_the_facts():
    found = "\n".join(limits(FACTS))
    assert "All images come from one source." in found
    assert "fewer than 100 test images of covid:" in found
    assert "There is no audit" in found
    assert "64 x 64 pixels" in found
    assert "Patients are not known" not in found
    run = {**FACTS.run, "options": FACTS.run["options"] | option(size=512)}
    better = replace(
        FACTS,
        audited=True,
        external=True,
        sources={"a": 100, "b": 130},
        run=run,
        summary={**SUMMARY, "patients_known": False},
    )
    found = "\n".join(limits(better))
    assert "2 sources" in found
    assert "Patients are not known" in found
    for gone in ("No audit", "nothing here tells", "pixels"):
        assert gone not in found


def test_what_the_test_images_are_is_only_claimed_where_it_is_known():
    same = "All results are on images from the same sources as the training images."
    assert same in limits(FACTS)[0]
    assert "trained on the other sources" in limits(replace(FACTS, sources_apart=True))[0]
    assert "is not known" in limits(replace(FACTS, run={}))[0]
    assert not any(same in line for line in limits(replace(FACTS, external=True)))
