"""The page on a batch: what was predicted for images without labels, how surely, and which images are unusual.

There is no accuracy of these images on it. That of the run on its own test images is named as such.
"""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxrtool
from cxrtool.commands.report.batch import Batch, evaluation_command
from cxrtool.commands.report.making import COMMAND, command_lines, machines_section, settings_section
from cxrtool.commands.report.results import first_lines
from cxrtool.data.file_names import PREDICTIONS
from cxrtool.errors import CxrtoolError, ImageError, count_of
from cxrtool.flow.audits import first_marks, sections_of
from cxrtool.flow.evaluating import EvaluateOptions, evaluate
from cxrtool.flow.origins import words_of
from cxrtool.flow.run import read_run_predictions
from cxrtool.flow.settings import Muted, Settings

if TYPE_CHECKING:
    import numpy as np

    from cxrtool.commands.report.options import ReportOptions
    from cxrtool.reporting.page import Page, Picture, Section

THRESHOLDS = (0.99, 0.95, 0.9, 0.75, 0.5, 0.25, 0.1)
SURE, UNSURE = 0.9, 0.6
"""Probabilities of the predicted class from which a prediction is called sure, and below which it is called unsure."""

SHOWN = 10
"""Images of the most and of the least certain predictions."""

SHOWN_UNLIKE = 10
LISTED = 60
"""Images that are unlike the training images: as pictures, and as rows of a table."""

AUDITED = 2
"""Findings of the audit of the run among the first lines; the others are in the section on the audit."""

SIDE = 300
"""Pixels of the longer side of a picture."""

PREDICTED, CERTAINTY, UNLIKE = "Predictions", "How sure the model is", "Images unlike the training images"
MOST, LEAST, THE_MODEL = "Most certain predictions", "Least certain predictions", "The model"
LIMITS = "What this page does not show"

INSIDE = "No image is unlike the training images in the properties that are compared."
OWN = "On the test images of its own data, not on these images: "
NO_LABELS = "No accuracy can be computed, because none of these images has a label."


@dataclass
class UnlabelledMaker:
    """Makes the page of a batch; images and figures are written to `folder`, a temporary one."""

    batch: Batch
    options: ReportOptions
    settings: Settings
    folder: Path

    def page(self) -> Page:
        """The page."""
        from cxrtool.reporting.page import Page, Section

        batch = self.batch
        self.settings.report.note("drawing")
        own = self._own_results()
        sections = [
            self._predictions(),
            self._certainty(),
            self._unlike(),
            self._images(MOST, descending=True),
            self._images(LEAST, descending=False),
            self._model(own),
            *self._audit(),
            *([one] if batch.study and (one := settings_section(batch.study)) else []),
            Section(LIMITS, self._limits()),
            self._machines(),
        ]
        name = batch.table.absolute()
        what = name.parent.name if name.name == PREDICTIONS else name.stem
        about = f"{len(batch.rows)} images without labels; {' against '.join(batch.classes)} on chest radiographs."
        footer = (
            f"Made by cxrtool report {cxrtool.__version__} from {batch.table}. This page needs no network and sends "
            "nothing."
        )
        return Page(f"Predictions without labels: {what}", about, self._marks(own), sections, footer)

    def _marks(self, own: list[str]) -> list[tuple[str, str]]:
        from cxrtool.auditing.part import CLEAR, NOTE, UNKNOWN, WARNING

        batch = self.batch
        count = len(batch.rows)
        best = batch.probabilities.max(1)
        sure, unsure = int((best >= SURE).sum()), int((best < UNSURE).sum())
        counts = Counter(batch.predicted(k) for k in range(count))
        shares = ", ".join(f"{batch.classes[k]} {number} ({number / count:.0%})" for k, number in counts.most_common())
        marks = [
            (UNKNOWN, f"{NO_LABELS} Once labels exist: `{evaluation_command(self._shown_model())}`."),
            (NOTE, f"Predicted class of {count_of(count, 'image')}: {shares}. This is no prevalence."),
            (
                NOTE,
                f"The probability of the predicted class is {SURE} or more for {sure} ({sure / count:.0%}), and below "
                f"{UNSURE} for {unsure} ({unsure / count:.0%}). A high probability does not show that it is right.",
            ),
        ]
        odd = [row for row in batch.rows if batch.unlike(row)]
        if odd:
            kinds = self._kinds()
            most = ", ".join(f"{kind} ({len(found)})" for kind, found in kinds[:4]) + (", …" if len(kinds) > 4 else ".")
            share, verb = f"{len(odd) / count:.0%}", "is" if len(odd) == 1 else "are"
            text = f"{len(odd)} of {count_of(count, 'image')} ({share}) {verb} unlike the training images: {most}"
            marks.append((WARNING, text))
        if not (batch.training and batch.beside.images):
            marks.append((UNKNOWN, f"In what the images are unlike the training images: {self._why_unknown()}."))
        elif not odd:
            marks.append((CLEAR, INSIDE))
        if batch.beside.rejects:
            marks.append((WARNING, f"{count_of(len(batch.beside.rejects), 'image')} could not be read: no prediction."))
        marks += [(NOTE, line) for line in own]
        return marks + (first_marks(batch.study.audit)[:AUDITED] if batch.study and own else [])

    def _shown_model(self) -> Path | None:
        model = self.batch.beside.model
        return None if model is None else Path(os.path.relpath(model))

    def _why_unknown(self) -> str:
        batch = self.batch
        if not batch.beside.images:
            return (
                f"their properties were not recorded beside {batch.table.name}; `cxrtool predict` with "
                f"-o {batch.table.name} records them"
            )
        return (
            "the model does not have the properties of its training images, because an earlier cxrtool trained it; "
            "only images of another kind are found"
        )

    def _kinds(self) -> list[tuple[str, list[int]]]:
        """The kinds of deviations, the most common first, each with the indices of its images."""
        from cxrtool.imaging.properties import kinds_of

        found: dict[str, list[int]] = {}
        for k, row in enumerate(self.batch.rows):
            for kind in dict.fromkeys(kinds_of(self.batch.unlike(row))):
                found.setdefault(kind, []).append(k)
        return sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))

    def _order(self) -> list[int]:
        classes = self.batch.classes
        positive = self.options.positive
        first = [classes.index(positive)] if positive else []
        return first + [k for k in range(len(classes)) if k not in first]

    def _predictions(self) -> Section:
        from cxrtool.evaluation.plots.probabilities import MOST as MOST_PANELS
        from cxrtool.evaluation.plots.probabilities import draw_probabilities
        from cxrtool.evaluation.tables import Sheet
        from cxrtool.reporting.page import Picture, Section

        batch = self.batch
        count = len(batch.rows)
        counts = Counter(batch.predicted(k) for k in range(count))
        known = batch.study.counts("label") if batch.study else {}
        total = sum(known.values())
        rows = []
        for k in self._order():
            name = batch.classes[k]
            cells = [name, str(counts[k]), f"{counts[k] / count:.1%}", f"{batch.probabilities[:, k].mean():.3f}"]
            rows.append([*cells, *([f"{known.get(name, 0) / total:.1%}"] if total else [])])
        columns = [
            "class",
            "predicted images",
            "share",
            "mean probability",
            *(["share in the run's data"] if total else []),
        ]
        notes = [
            "These shares are counts of predictions. They include the errors of the model, and are not the prevalences "
            "of the classes."
        ]
        shown = Sheet("Predicted classes", columns, rows, notes)
        at_least = [
            [f"{value:g} or more", *(_share(batch.probabilities[:, k] >= value) for k in self._order())]
            for value in THRESHOLDS
        ]
        names = [batch.classes[k] for k in self._order()]
        table = Sheet("Images with this probability of a class", ["probability", *names], at_least + self._stored(), [])
        path = self.folder / "probabilities.png"
        own = self._own_probabilities
        draw_probabilities(batch.classes, batch.probabilities, own, self._order(), path)
        caption = (
            "Number of images by predicted probability; dotted: the same probability for every class."
            + (" Outline: the test images of the run, scaled to the same number." if own is not None else "")
            + (f" The first {MOST_PANELS} classes." if len(batch.classes) > MOST_PANELS else "")
        )
        return Section(PREDICTED, self._how(), [shown, table], [Picture(path, caption, wide=True)])

    def _how(self) -> list[str]:
        """How the predictions were made, in words."""
        batch = self.batch
        made = batch.beside.made
        if not made:
            return [f"How these predictions were made is not known: {batch.beside.lost}."]
        members, options = len(made["members"]), made.get("options", {})
        text = f"Each probability is the mean of {members} models, the folds of a run." if members > 1 else ""
        if batch.agreeing is not None:
            text += f" All models predict the same class for {_share(batch.agreeing == 1)} of the images."
        lines = [text] if text else ["Each probability is that of one model."]
        if (options.get("calibrated") or {}).get("value"):
            lines.append("Probabilities were calibrated by a temperature, fitted on the validation images of the run.")
        if (options.get("tta") or {}).get("value"):
            lines.append("Each image was also predicted mirrored, and the probabilities were averaged.")
        return lines

    def _stored(self) -> list[list[str]]:
        """Rows for the thresholds that one model has from its validation images."""
        batch = self.batch
        one = batch.model if len(batch.beside.folders) == 1 else None
        calibrated = (batch.beside.made.get("options", {}).get("calibrated") or {}).get("value")
        if one is None or not one.thresholds or calibrated:
            return []
        rows = []
        for wanted in dict.fromkeys(s for found in one.thresholds.values() for s in found):
            values = [one.thresholds.get(batch.classes[k], {}).get(wanted, {}).get("threshold") for k in self._order()]
            if any(value is not None for value in values):
                cells = [
                    "-" if value is None else f"{_share(batch.probabilities[:, k] >= value)} at {value:.3f}"
                    for k, value in zip(self._order(), values, strict=True)
                ]
                rows.append([f"threshold for sensitivity {wanted} on validation images", *cells])
        return rows

    def _certainty(self) -> Section:
        import numpy as np

        from cxrtool.evaluation.tables import Sheet
        from cxrtool.reporting.page import Section

        batch = self.batch
        own = self._own_probabilities
        best = batch.probabilities.max(1)
        edges = [1.01, 0.99, SURE, 0.75, UNSURE, 0.0]
        words = ["0.99 or more", f"{SURE} to 0.99", f"0.75 to {SURE}", f"{UNSURE} to 0.75", f"below {UNSURE}"]
        rows = []
        for word, high, low in zip(words, edges, edges[1:], strict=False):
            cells = [word, *_count_and_share(int(((best >= low) & (best < high)).sum()), len(best))]
            reference = own.max(1) if own is not None else None
            rows.append(
                cells + ([f"{np.mean((reference >= low) & (reference < high)):.1%}"] if reference is not None else [])
            )
        more = ["share of the run's test images"] if own is not None else []
        notes = (
            ["Each test image of the run was predicted by one model, which is often more certain than a mean."]
            if own is not None and len(batch.beside.folders) > 1
            else []
        )
        sheet = Sheet("Probability of the predicted class", ["probability", "images", "share", *more], rows, notes)
        entropy = _entropy(batch.probabilities)
        lines = [
            f"The probability of the predicted class has a median of {np.median(best):.3f}. "
            f"The entropy of the probabilities has a median of {np.median(entropy):.2f}, on a scale from 0 (one class "
            "has all the probability) to 1 (all classes are equally probable)."
            + (f" For the test images of the run it is {np.median(_entropy(own)):.2f}." if own is not None else ""),
            "This shows how sure the model is, not how often it is right. A network can be as sure of a wrong class, "
            "above all on images from another source than its training images.",
        ]
        return Section(CERTAINTY, lines, [sheet])

    def _unlike(self) -> Section:
        from cxrtool.evaluation.tables import Sheet
        from cxrtool.reporting.page import Section

        batch = self.batch
        kinds = self._kinds()
        odd = [k for k, row in enumerate(batch.rows) if batch.unlike(row)]
        lines = []
        if not (batch.training and batch.beside.images):
            lines.append(f"Not known for all properties: {self._why_unknown()}.")
        if odd:
            lines.append(
                f"{count_of(len(odd), 'image')} of {len(batch.rows)}: their probabilities mean less, whatever they "
                "are. A radiologist should look at them."
            )
        elif batch.training and batch.beside.images:
            lines.append(INSIDE)
        if not batch.beside.images:
            cells = [row.get("warning", "").split(":")[0] for row in batch.rows]
            warned = Counter(cell for cell in cells if cell).most_common()
            lines += (
                [f"Warnings in the table: {', '.join(f'{name} ({number})' for name, number in warned)}."]
                if warned
                else []
            )
        sheets = []
        if kinds:
            reasons = [[kind, *_count_and_share(len(found), len(batch.rows))] for kind, found in kinds]
            sheets.append(Sheet("In what", ["unlike in", "images", "share"], reasons, []))
        if batch.training and batch.beside.images:
            sheets.append(self._ranges(batch.training))
        if odd:
            most = sorted(odd, key=lambda k: (-batch.unlike(batch.rows[k]).count("; "), batch.rows[k]["image_id"]))
            table = [
                [
                    batch.rows[k]["image_id"],
                    batch.unlike(batch.rows[k]).replace("; ", ". "),
                    batch.classes[batch.predicted(k)],
                ]
                for k in most[:LISTED]
            ]
            rest = len(odd) - LISTED
            notes = [f"{rest} more are in {self._images_file()}, column unlike."] if rest > 0 else []
            sheets.append(
                Sheet("Images, those with the most reasons first", ["image", "unlike in", "predicted"], table, notes)
            )
        if batch.beside.rejects:
            table = [[Path(row["path"]).name, row["reason"]] for row in batch.beside.rejects[:LISTED]]
            sheets.append(Sheet("Images that could not be read", ["file", "reason"], table, []))
        pictures, missing = self._draw(_spread(kinds, SHOWN_UNLIKE), "unlike")
        return Section(UNLIKE, [*lines, *missing], sheets, pictures)

    def _images_file(self) -> str:
        return next((path.name for path in self.batch.beside.files if path.name.endswith(".images.csv")), "")

    def _ranges(self, training: Mapping[str, Any]) -> Any:
        import numpy as np

        from cxrtool.evaluation.tables import Sheet
        from cxrtool.imaging.properties import BITS, HIGH, LOW, MIDDLE, PROPERTIES, RARE, RULES, limits, value_of

        known = [
            self.batch.beside.images[row["image_id"]]
            for row in self.batch.rows
            if row["image_id"] in self.batch.beside.images
        ]
        rows = []
        for name, one in PROPERTIES.items():
            values = [value for row in known if (value := value_of(row, name)) is not None]
            quantiles = training["quantiles"].get(name)
            if not values and not quantiles:
                continue
            here = [one.form.format(value) for value in np.quantile(values, (0.01, 0.5, 0.99))] if values else []
            there = [one.form.format(quantiles[k]) for k in (LOW, MIDDLE, HIGH)] if quantiles else []
            outside = "not known"
            if quantiles and values:
                low, high = limits(name, quantiles)
                outside = str(sum(not low <= value <= high for value in values))
            rows.append([one.words, *_range(there), *_range(here), outside])
        deep = sum(row.get(BITS) == "16" for row in known)
        share = training[BITS].get("16", 0.0)
        rows.append(
            ["16 bits", f"{share:.1%}", "", f"{deep / max(1, len(known)):.1%}", "", str(deep) if share < RARE else "0"]
        )
        columns = ["property", "training, 1 % to 99 %", "median", "these images, 1 % to 99 %", "median", "outside"]
        notes = [
            *RULES,
            f"Training: {training['images']} images"
            + (" in each fold, the widest range of the folds" if len(self.batch.beside.made["members"]) > 1 else "")
            + ". Grey values: from 0 (black) to 1 (white), of the image as the network sees it.",
        ]
        return Sheet("Training images and these images", columns, rows, notes)

    def _images(self, title: str, *, descending: bool) -> Section:
        from cxrtool.reporting.page import Section

        batch = self.batch
        best = batch.probabilities.max(1)
        order = sorted(
            range(len(batch.rows)), key=lambda k: (-best[k] if descending else best[k], batch.rows[k]["image_id"])
        )
        if descending and len(batch.rows) > SHOWN:
            # Some of each class, so that one class does not fill all places.
            by_class = {c: [k for k in order if batch.predicted(k) == c] for c in self._order()}
            order = _spread([(str(c), found) for c, found in by_class.items() if found], SHOWN)
        pictures, missing = self._draw(order[:SHOWN], "most" if descending else "least")
        line = (
            "The highest probabilities of each predicted class. Sure is not the same as right: look whether these are "
            "good radiographs at all."
            if descending
            else "The lowest probabilities of the predicted class: here the model decides between classes by little."
        )
        return Section(title, [line, *missing], (), pictures)

    def _draw(self, chosen: Sequence[int], name: str) -> tuple[list[Picture], list[str]]:
        """Pictures of images with their captions, and a line on those that are missing."""
        from cxrtool.data.reading.images import read_image
        from cxrtool.explaining.overlay import write_picture
        from cxrtool.imaging.sheet import grey_tile
        from cxrtool.reporting.page import Picture

        pictures, missing = [], 0
        for number, k in enumerate(chosen):
            try:
                pixels = read_image(self.batch.rows[k].get("path", ""), capture_decoder_errors=True).pixels
            except ImageError:
                missing += 1
                continue
            path = self.folder / f"{name}{number}.png"
            write_picture(path, _square(grey_tile(pixels, SIDE)))
            pictures.append(Picture(path, self.batch.caption(k)))
        lines = (
            [f"{missing} of these {len(chosen)} images are not where they were, and are not shown."] if missing else []
        )
        return pictures, lines

    def _own_results(self) -> list[str]:
        """The main figures of the run on its own test images, as lines; empty where they are not known."""
        batch = self.batch
        if batch.study is None or batch.beside.model is None:
            return []
        options = EvaluateOptions(
            (str(batch.beside.model),),
            positive=self.options.positive,
            partial=True,
            resamples=self.options.resamples,
        )
        try:
            summaries = evaluate(
                options, replace(self.settings, out=None, dry_run=False, report=Muted(self.settings.report))
            )
        except CxrtoolError:
            return []
        return [f"{OWN}{line[0].lower()}{line[1:]}" for line in first_lines(summaries)]

    @cached_property
    def _own_probabilities(self) -> np.ndarray | None:
        """The probabilities (m, K) of the run for its own test images."""
        batch = self.batch
        if batch.study is None or batch.beside.model is None:
            return None
        found = read_run_predictions(batch.beside.model, partial=True)
        tested = [k for k, row in enumerate(found.rows) if row.get("subset") == "test"]
        order = [found.classes.index(name) for name in batch.classes]
        return found.probabilities[tested][:, order] if tested else None

    def _model(self, own: list[str]) -> Section:
        from cxrtool.evaluation.tables import Sheet
        from cxrtool.reporting.page import Section

        batch = self.batch
        if batch.model is None:
            return Section(THE_MODEL, [f"The model is not known: {batch.beside.lost}."])
        facts = [["model", str(self._shown_model())], ["network", str(batch.model.network.get("name", ""))]]
        facts += [
            [name, str(batch.model.trained[name])] for name in ("preset", "weights") if batch.model.trained.get(name)
        ]
        facts.append(["input", f"{batch.model.input.size} x {batch.model.input.size} pixels, {batch.model.input.fit}"])
        if batch.study:
            study = batch.study
            counts, sources = study.counts("label"), study.counts("source")
            facts.append(["images of the run", f"{len(study.rows)}: {_listed(counts)}"])
            facts += [["sources", _listed(sources)]] if sources else []
            if batch.training:
                facts.append(["training images of a fold", str(batch.training["images"])])
            facts += [["trained", str(study.made.get("started", ""))[:10]]] if study.made.get("started") else []
            facts.append(["audit", str(study.audit.folder) if study.audit else "none found"])
        lines = own or ["How well the model performs on its own test images is not known."]
        lines = [*lines, "On images from another hospital, device or year it may be much lower, down to chance."]
        return Section(THE_MODEL, lines, [Sheet("", ["what", "value"], facts, [])])

    def _audit(self) -> list[Section]:
        study = self.batch.study
        if study is None or study.audit is None:
            return []
        overview = sections_of(study.audit)[0]
        findings = [text for _, text in first_marks(study.audit)]
        return [replace(overview, lines=[*overview.lines, *findings], folded=True)]

    def _limits(self) -> list[str]:
        batch = self.batch
        return [
            NO_LABELS + " Nor can sensitivity, specificity, AUC or calibration. With a table of the columns path and "
            "label, this computes them:",
            COMMAND + evaluation_command(self._shown_model()),
            f"The model knows only {', '.join(batch.classes)}. It gives one of them to every image, also to one of "
            "another disease or of no chest.",
            "The comparison with the training images sees simple properties only. An image inside all ranges may still "
            "be of another device, projection, age group or disease than any training image.",
            "Probabilities depend on how common each class was among the training images, not in a clinic.",
            "No number here shows that the model may be used on patients.",
        ]

    def _machines(self) -> Section:
        from cxrtool.reporting.page import Section
        from cxrtool.reporting.titles import MACHINES

        batch = self.batch
        made = batch.beside.made
        line = [COMMAND + shlex.join(["cxrtool", *words_of(made)])] if made.get("argv") else []
        if batch.study is None:
            return Section(MACHINES, line or ["How the predictions were made is not known."])
        section = machines_section(batch.study)
        return replace(section, lines=[*(COMMAND + one for one in command_lines(batch.study)), *line])


def _share(chosen: np.ndarray) -> str:
    return f"{int(chosen.sum())} ({chosen.mean():.0%})"


def _count_and_share(number: int, count: int) -> list[str]:
    return [str(number), f"{number / count:.1%}"]


def _square(tile: np.ndarray) -> np.ndarray:
    """A picture (h, w, 3) in the middle of a white square, so that a narrow one has room for its caption."""
    import numpy as np

    height, width = tile.shape[:2]
    canvas = np.full((SIDE, SIDE, 3), 255, np.uint8)
    top, left = (SIDE - height) // 2, (SIDE - width) // 2
    canvas[top : top + height, left : left + width] = tile
    return canvas


def _range(quantiles: Sequence[str]) -> list[str]:
    return [f"{quantiles[0]} to {quantiles[2]}", quantiles[1]] if quantiles else ["not known", ""]


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({number})" for name, number in counts.items())


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    """The entropy of each row (n, K), divided by its largest value log K."""
    import numpy as np

    safe = np.clip(probabilities, 1e-12, 1.0)
    return np.asarray(-(safe * np.log(safe)).sum(1) / np.log(probabilities.shape[1]))


def _spread(groups: Sequence[tuple[str, Sequence[int]]], most: int) -> list[int]:
    """At most `most` different members: first of each group that has none yet, then of each in turn.

    >>> _spread([("a", [1, 2, 3]), ("b", [1, 9]), ("c", [4])], 4)
    [1, 4, 2, 9]
    """
    chosen: dict[int, None] = {}
    for _, found in groups:
        if not chosen.keys() & set(found):
            chosen[found[0]] = None
    for turn in range(max((len(found) for _, found in groups), default=0)):
        chosen |= {found[turn]: None for _, found in groups if turn < len(found)}
    return list(chosen)[:most]
