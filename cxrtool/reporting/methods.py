"""The methods of a study as paragraphs to paste and edit, made from its files.

Every sentence states what was recorded. What no file records is in square brackets, for the author to write. A name
that is in no registry here, such as that of a newer version, is used unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cxrtool.evaluation.tables import count_of
from cxrtool.imaging.fits import FITS
from cxrtool.training.options import BN_STATS, CHECKPOINTS, OPTIMIZERS, SCHEDULES, WATCHED

LOSSES = {
    "margin": "the margin loss of capsule networks",
    "cumulative": "the negative log-likelihood of the proportional-odds model (cumulative logits, McCullagh 1980), in "
    "which one score of the network and rising thresholds give the probabilities of the ordered classes",
}
"""Losses whose name does not explain them."""

CHANGES = {
    "rotate": "rotation by up to ±{}°",
    "shift": "shift by up to {} of the side",
    "shear": "shear by up to ±{}",
    "zoom": "magnification by up to ±{}",
    "stretch": "vertical stretching by up to ±{}",
    "pad": "padding by up to {} of the side",
    "crop": "random crops of up to {} of the side",
    "flip": "horizontal flips with probability {}",
    "brightness": "changes of brightness by up to ±{}",
    "contrast": "changes of contrast by up to ±{}",
    "blur": "Gaussian blur (standard deviation {} pixels)",
    "noise": "Gaussian noise (standard deviation {})",
    "keras": "as by Keras' ImageDataGenerator (each axis magnified by itself)",
}
"""The parts of `--augment` as phrases."""

Words = Callable[[Mapping[str, Any]], str]
"""Makes a sentence from an entry of a chain."""

_NAMES = ("manifest", "splits", "preset", "transform")
"""Options of training that name inputs and are no settings."""


@dataclass(frozen=True)
class Facts:
    """What is known of a study.

    Attributes:
        images: Number of radiographs that were divided, or evaluated.
        patients: Number of their patients; None where no image has a patient_id.
        classes: Number of images of each label.
        sources: Number of images of each source.
        excluded: Number of excluded images.
        chain: The processing of the images before training, as in `run.json`; None where unknown.
        divided: The division, as sentences.
        run: `run.json` of the run; empty for predictions alone.
        fold: `run.json` of its first fold.
        model: `model.json` of its first fold.
        summary: `metrics.json`.
        folds: Number of folds.
        loss: The training loss.
        audited: Whether there is an audit of these images.
        external: Whether several sets are evaluated side by side.
        sources_apart: Whether the test images of each fold are from a source that its training images are not from.
        calibrated: Whether probabilities were calibrated by a temperature fitted on validation images.
        sensitivity: The sensitivity for which thresholds were chosen on validation images, or None.
        enhancing: The sentence of each step of `enhance`.
    """

    images: int
    patients: int | None
    classes: Mapping[str, int]
    sources: Mapping[str, int]
    excluded: int
    chain: Sequence[Mapping[str, Any]] | None
    divided: str
    run: Mapping[str, Any]
    fold: Mapping[str, Any]
    model: Mapping[str, Any]
    summary: Mapping[str, Any]
    folds: int = 1
    loss: str = "cross-entropy"
    audited: bool = False
    external: bool = False
    sources_apart: bool = False
    calibrated: bool = False
    sensitivity: float | None = None
    enhancing: Mapping[str, Words] = field(default_factory=dict)

    def option(self, name: str) -> Any:
        """The value of an option of training."""
        return (self.run.get("options", {}).get(name) or {}).get("value")


def paragraphs(facts: Facts) -> list[str]:
    """The methods, one paragraph per item."""
    found = [_data(facts), _processing(facts), facts.divided]
    if facts.run:
        found += [_network(facts), _training(facts)]
    else:
        found.append("The training is not among what this report was made from. [Describe the model and its training.]")
    return [text for text in [*found, _evaluation(facts), _software(facts)] if text]


def _data(facts: Facts) -> str:
    of = f" of {count_of(facts.patients, 'patient')}" if facts.patients is not None else ""
    classes = listed([f"{count} {name}" for name, count in facts.classes.items()])
    text = f"Data. The study used {count_of(facts.images, 'chest radiograph')}{of}: {classes}."
    if facts.sources:
        several = len(facts.sources) > 1
        named = [f"{name} ({count})" if several else name for name, count in facts.sources.items()]
        text += f" They came from {listed(named)}."
    if facts.excluded:
        verb = "was" if facts.excluded == 1 else "were"
        text += f" {count_of(facts.excluded, 'image')} {verb} excluded before, for the reasons in the flow of images."
    return text + (
        " [Write where and when the images were taken, on which devices, by which criteria patients were selected, and "
        "how and by whom the labels were established.]"
    )


def _processing(facts: Facts) -> str:
    if facts.chain is None:
        return ""
    sentences = [text for entry in facts.chain if (text := _step_in_words(entry, facts.enhancing))]
    if not sentences:
        return "Image processing. The images were used as stored, as grey values of 8 or 16 bits."
    return "Image processing. " + " ".join(sentences)


def _step_in_words(entry: Mapping[str, Any], enhancing: Mapping[str, Words]) -> str:
    step = entry["step"]
    if step == "prepare":
        if entry.get("size") == "native":
            return ""
        fit = str(entry.get("fit"))
        how = FITS[fit].words if fit in FITS else f"by the fit {fit}"
        return f"Images were resized to {entry['size']} x {entry['size']} pixels {how}."
    if step == "segment":
        part, uses = entry.get("part", {}), str(entry.get("use", "")).split("+")
        done = {
            "crop": f"images were cut to the smallest rectangle around both lungs plus a margin of "
            f"{100 * float(entry.get('margin', 0)):g} % of the {entry.get('margin_of', 'image')}'s side",
            "apply": "pixels outside the lungs were set to black",
            "erase": "the lungs were erased",
        }
        used = listed([done.get(word, f"the use {word} was made of them") for word in uses if word])
        return f"The lungs were found by a network ({part.get('network', 'unknown')})" + (
            f", and {used}." if used else "."
        )
    if step in enhancing:
        return enhancing[step](entry)
    if step == "transform":
        return "Each image was transformed by one generator per class, fitted on the training images of its fold."
    return f"The step {step} was applied."


def _network(facts: Facts) -> str:
    model, notes = facts.model, facts.fold.get("training", {})
    size, shape = model.get("input", {}), model.get("architecture", {})
    name = shape.get("name") or facts.option("model")
    text = f"Network. The network was {name}"
    if notes.get("parameters"):
        trained = notes.get("trained_parameters", notes["parameters"])
        part = "all of them trainable" if trained == notes["parameters"] else f"{_millions(trained)} of them trainable"
        text += f" with {_millions(notes['parameters'])} parameters, {part}"
    pixels = size.get("size") or facts.option("size")
    text += f". It received images of {pixels} x {pixels} pixels"
    classes = model.get("classes") or list(facts.classes)
    text += f" and gave probabilities of {len(classes)} classes ({', '.join(map(str, classes))})."
    if shape.get("hidden"):
        text += f" A layer of {shape['hidden']} units preceded its last layer."
    if shape.get("dropout"):
        text += f" Dropout was {shape['dropout']:g}."
    weights = model.get("trained", {}).get("weights")
    if weights:
        drawn = "drawn at random" in str(weights)
        text += " Its weights were drawn at random." if drawn else f" Its weights started from: {weights}."
    if facts.option("freeze"):
        text += " The backbone of the network was frozen."
    preset = facts.option("preset")
    if preset:
        changed = [
            f"{name.replace('_', '-')} {entry['value']}"
            for name, entry in facts.run.get("options", {}).items()
            if entry.get("origin") in ("flag", "config") and name not in _NAMES
        ]
        text += f" Settings followed the preset {preset} of cxrtool"
        text += f", except for {listed(changed)}." if changed else "."
    return text


def _training(facts: Facts) -> str:
    value = facts.option
    epochs, patience = int(value("epochs") or 0), int(value("patience") or 0)
    text = f"Training. The network was trained for up to {count_of(epochs, 'epoch')} in batches of "
    opt = OPTIMIZERS.get(str(value("opt")))
    text += f"{value('batch_size')} by {opt.words if opt else value('opt')}"
    extras = []
    if (opt is None or opt.momentum) and value("momentum"):
        extras.append(f"momentum {value('momentum'):g}")
    if value("weight_decay"):
        extras.append(f"weight decay {value('weight_decay'):g}")
    text += f" ({', '.join(extras)})" if extras else ""
    rate = f"{value('lr'):g}" if isinstance(value("lr"), int | float) else str(value("lr"))
    schedule = SCHEDULES.get(str(value("sched")))
    course = schedule.words if schedule else f"followed the schedule {value('sched')}"
    course = course.format(decay_rate=value("decay_rate"), decay_epochs=value("decay_epochs"))
    text += f" at a learning rate of {rate}, which {course}."
    text += f" The loss was {LOSSES.get(facts.loss, facts.loss)}{_weighted(value('class_weights'))}."
    if 0 < patience < epochs:
        text += f" Training stopped after {count_of(patience, 'epoch')} without a lower validation loss."
    kept = str(value("checkpoint") or "")
    text += f" {CHECKPOINTS.get(kept, f'The checkpoint {kept} was kept.')}" if kept else ""
    norms = BN_STATS.get(str(value("bn_stats") or ""), "")
    text += f" {norms}" if norms else ""
    watched = WATCHED.get(str(value("watch") or ""), "")
    text += f" {watched}" if watched else ""
    return f"{text} {augmentation_in_words(str(value('augment') or 'none'))}"


def _weighted(name: object) -> str:
    if name in (None, "none"):
        return ""
    return ", weighted inversely to class frequency" if name == "balanced" else f", with the class weights {name}"


def augmentation_in_words(text: str) -> str:
    """The value of `--augment` as a sentence.

    >>> augmentation_in_words("rotate=10,flip=0.5")
    'Training images were augmented by rotation by up to ±10° and horizontal flips with probability 0.5.'
    >>> augmentation_in_words("none")
    'Training images were not augmented.'
    """
    parts = [part.strip() for part in text.split(",")]
    pairs = {name: value for name, _, value in (part.partition("=") for part in parts if part not in ("", "none"))}
    each, keras = pairs.pop("p", None), pairs.pop("keras", "0")
    phrases = [
        CHANGES[name].format(value) if name in CHANGES else f"{name} {value}".rstrip()
        for name, value in pairs.items()
        if value not in ("0", "0.0")
    ]
    if not phrases:
        return "Training images were not augmented."
    how = f", each with probability {each} (except flips)" if each and float(each) != 1 else ""
    how += f", {CHANGES['keras']}" if keras not in ("0", "0.0") else ""
    return f"Training images were augmented by {listed(phrases)}{how}."


def _evaluation(facts: Facts) -> str:
    summary = facts.summary
    interval, several = summary["interval"], summary["runs"] > 1
    unit = "patients" if summary["patients_known"] else "images"
    text = "Evaluation. "
    if several:
        folds = "the folds of a repeat" if summary["repeats"] > 1 else "the folds"
        pooled = folds if summary["runs"] > summary["repeats"] else "each repeat"
        text += f"Decisions were pooled over {pooled}" + (
            " and averaged over repeats" if summary["repeats"] > 1 else ""
        )
        text += (
            "; the area under the ROC curve (AUC), average precision and calibration were computed within each test "
        )
        text += "set and averaged, as scores of different models are not comparable. "
    made = f"expanded percentiles (Hesterberg 2015) over {interval['resamples']:,} resamples of {unit} within class"
    if "method" in interval:
        made = f"from {interval['method']}, with variances within class"
    text += (
        f"{interval['confidence']:.0%} intervals are {made}; proportions of 0 or 1, or of fewer than 30 "
        f"{unit}, have Wilson's interval. They describe the sampling of test {unit} with the trained models fixed."
    )
    if several:
        text += " Standard deviations over folds and repeats are given beside them."
    if summary["positive"] is not None:
        text += f" The positive class was {summary['positive']}."
    if facts.calibrated:
        text += " Probabilities were calibrated by one temperature per fold, fitted on its validation images."
    if facts.sensitivity is not None:
        text += (
            f" In addition, {summary['positive']} was predicted from the threshold that gives a sensitivity of "
            f"{facts.sensitivity:g} on the validation images of its fold."
        )
    return text


def _software(facts: Facts) -> str:
    if not facts.run:
        return ""
    versions = facts.fold.get("versions") or facts.run.get("versions", {})
    machine, notes = facts.run.get("machine", {}), facts.fold.get("training", {})
    used = listed([f"{name} {version}" for name, version in versions.items()])
    text = f"Software. Training and evaluation used {used} under Python {machine.get('python', '?')}; the seed was "
    text += f"{facts.run.get('seed')}"
    device = notes.get("device")
    text += f", the device {device} in {notes.get('precision', 'full')} precision" if device else ""
    return text + ". Command lines, machines and times are listed with this report."


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 100_000 else f"{count:,}"


def listed(words: Sequence[str]) -> str:
    """Words as a list in a sentence.

    >>> listed(["a", "b", "c"])
    'a, b and c'
    """
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"
