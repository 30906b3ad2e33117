"""What reviewers ask of a study, item by item, and which section of a report answers it.

The items of CLAIM (2024 update: Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300) and of TRIPOD+AI
(Collins et al. 2024, BMJ 385:e078378) under their own numbers and in words of our own; the published wording counts,
and goes with a submission. A section answers an item only where it is on the page; whatever a program cannot know, an
author must write.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cxrtool.evaluation.tables import Sheet
from cxrtool.reporting.titles import (
    AUDIT,
    CURVES,
    ELSEWHERE,
    ERRORS,
    FLOW,
    LIMITS,
    MACHINES,
    METHODS,
    RESULTS,
    SETTINGS,
    TABLE_ONE,
)

AUTHOR = "author must write"


@dataclass(frozen=True)
class Item:
    """One item of a checklist.

    Attributes:
        number: Its own, as `12c`.
        asks: What it is about.
        sections: Titles of sections that answer it, as far as a program can.
        lacks: What remains for the author although a section is there; empty where nothing does.
    """

    number: str
    asks: str
    sections: tuple[str, ...] = ()
    lacks: str = ""


@dataclass(frozen=True)
class Checklist:
    """A checklist.

    Attributes:
        name: As it is known.
        source: Where it was published.
        items: In order.
    """

    name: str
    source: str
    items: tuple[Item, ...]


_CLAIM = (
    Item("1", "title or abstract names the study as one of AI, and the kind of AI"),
    Item("2", "abstract sums up design, methods, results and conclusions"),
    Item("3", "background: the clinical problem, and what the model would be used for"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "what the study is for: a new model, feasibility, a comparison"),
    Item("7", "where the data come from", (TABLE_ONE, FLOW), "hospitals, dates and access to the data"),
    Item("8", "who was included and who was not", (FLOW,), "the clinical criteria by which patients were chosen"),
    Item("9", "how images were processed before the model", (METHODS,)),
    Item("10", "how a part of the data was chosen", (FLOW,), "why, where a part was chosen"),
    Item("11", "how data were made anonymous"),
    Item("12", "what was missing, and what was done about it", (TABLE_ONE,), "what was done about it"),
    Item("13", "how images were acquired: devices, views, settings", (TABLE_ONE,), "devices and settings"),
    Item("14", "what the reference standard is"),
    Item("15", "why that reference standard was chosen"),
    Item("16", "who made the reference labels, and how qualified they are"),
    Item("17", "how the test set was annotated"),
    Item("18", "how far annotators agree with one another and with themselves"),
    Item("19", "how data were divided", (METHODS, FLOW)),
    Item("20", "at which level the parts are disjoint: images, patients, hospitals", (METHODS,)),
    Item("21", "how large the test set was meant to be, and why"),
    Item("22", "the model in detail: inputs, outputs, layers", (METHODS, SETTINGS)),
    Item("23", "software, with versions", (MACHINES,)),
    Item("24", "how weights were initialised", (METHODS,)),
    Item("25", "how the model was trained: augmentation, settings, stopping", (METHODS, SETTINGS, CURVES)),
    Item("26", "how the final model was chosen", (METHODS,), "whether other settings were tried before"),
    Item("27", "how several models were put together, if they were", (METHODS,), "anything beyond the folds"),
    Item("28", "by which figures performance is judged", (METHODS, RESULTS)),
    Item("29", "uncertainty and significance", (METHODS, RESULTS)),
    Item("30", "robustness: does the result hold when something changes", (AUDIT,), "what else was varied"),
    Item("31", "how answers are explained, and whether that was checked", (ERRORS,), "how heatmaps were judged"),
    Item("32", "evaluation on internal data", (RESULTS,)),
    Item("33", "testing on external data", (ELSEWHERE,), "what the other place is, and who was seen there"),
    Item("34", "registration, where it is a clinical trial"),
    Item("35", "numbers included and excluded, best as a flow diagram", (FLOW,), "exclusions before the first file"),
    Item("36", "who the patients are, in each part of the data", (TABLE_ONE,), "what no column of the manifest tells"),
    Item("37", "performance, with uncertainty, overall and by subgroup", (RESULTS,)),
    Item("38", "diagnostic accuracy, with its precision", (RESULTS,)),
    Item("39", "which cases are wrong, and why", (ERRORS,), "a radiologist's reading of them"),
    Item("40", "limitations", (LIMITS, AUDIT), "those of the study's own design"),
    Item("41", "what it means for practice"),
    Item("42", "where the protocol or further details are", (MACHINES,), "the protocol"),
    Item("43", "whether software, model and data are available"),
    Item("44", "funding, and the funders' part"),
)

_TRIPOD = (
    Item("1", "title: a prediction model developed or evaluated, for whom, and for which outcome"),
    Item("2", "abstract, by TRIPOD+AI's own list for abstracts"),
    Item("3a", "background: the decision that is helped, and models that exist"),
    Item("3b", "for which patients, in which setting, and used by whom"),
    Item("3c", "known differences in health between groups of people"),
    Item("4", "aims: development, evaluation or both"),
    Item("5a", "sources of the data, apart for development and evaluation", (TABLE_ONE, FLOW), "how typical they are"),
    Item("5b", "dates of the data"),
    Item("6a", "setting, and the number of centres", (TABLE_ONE,), "where and of what kind the centres are"),
    Item("6b", "who was eligible", (FLOW,), "the clinical criteria"),
    Item("6c", "treatments, where they matter"),
    Item("7", "how data were prepared and checked, alike in all groups", (METHODS, AUDIT)),
    Item("8a", "the outcome: what it is, when and how it was found"),
    Item("8b", "who judged it, where it takes judgement"),
    Item("8c", "whether that was done without knowing the images"),
    Item("9a", "why these predictors: here, the radiograph"),
    Item("9b", "how and when the images were taken", (TABLE_ONE,), "devices, and the time between image and outcome"),
    Item("9c", "who judged predictors, where that takes judgement"),
    Item("10", "how the sample size was arrived at"),
    Item("11", "missing data, and what was done about them", (TABLE_ONE,), "what was done about them"),
    Item("12a", "how data were divided for development and evaluation", (METHODS, FLOW)),
    Item("12b", "how images were put before the model", (METHODS,)),
    Item("12c", "kind of model, how it was built and tuned, internal validation", (METHODS, SETTINGS, CURVES),
         "why this kind of model; what else was tried"),
    Item("12d", "how differences between clusters such as hospitals were handled", (AUDIT,), "what follows from them"),
    Item("12e", "by which figures and pictures performance is judged", (METHODS, RESULTS)),
    Item("12f", "whether the model was updated after its evaluation", (METHODS,), "any later updating"),
    Item("12g", "how predictions were computed in the evaluation", (METHODS,)),
    Item("13", "what was done about unequal classes", (METHODS,), "why"),
    Item("14", "what was done for fairness between groups", (RESULTS,), "what was done, beyond figures by group"),
    Item("15", "what the model puts out, and how its thresholds were chosen", (METHODS,)),
    Item("16", "how evaluation data differ from those of development", (TABLE_ONE, AUDIT)),
    Item("17", "ethical approval and consent"),
    Item("18a", "funding, and the funders' part"),
    Item("18b", "conflicts of interest"),
    Item("18c", "where the protocol is"),
    Item("18d", "registration"),
    Item("18e", "whether data can be had"),
    Item("18f", "whether code can be had", (MACHINES,), "whether code and model can be had"),
    Item("19", "part that patients and the public had"),
    Item("20a", "flow of participants, with and without the outcome", (FLOW,), "exclusions before the first file"),
    Item("20b", "who they are, overall and by source, with what is missing", (TABLE_ONE,)),
    Item("20c", "how predictors are distributed in development and evaluation", (TABLE_ONE,)),
    Item("21", "participants and outcome events in each analysis", (FLOW, TABLE_ONE)),
    Item("22", "the model itself, so that others can compute with it", (SETTINGS, MACHINES), "where it can be had"),
    Item("23a", "performance with intervals, in important subgroups too", (RESULTS,)),
    Item("23b", "how performance differs between clusters", (RESULTS, AUDIT), "evaluation at other hospitals"),
    Item("24", "results of updating the model, if it was"),
    Item("25", "what the results mean, fairness included"),
    Item("26", "limitations and what they do to the conclusions", (LIMITS, AUDIT), "those of the study's own design"),
    Item("27a", "what to do with images of poor quality or without some input", (AUDIT,), "the rule for practice"),
    Item("27b", "what users must do and know"),
    Item("27c", "next steps, and where the model may apply"),
)  # fmt: skip

CHECKLISTS = {
    "claim": Checklist("CLAIM, 2024 update", "Tejani et al. 2024, Radiology: Artificial Intelligence", _CLAIM),
    "tripod-ai": Checklist("TRIPOD+AI", "Collins et al. 2024, BMJ", _TRIPOD),
}
"""The checklists by the name that `--checklist` takes."""


def tabulate(checklist: Checklist, present: Collection[str]) -> Sheet:
    """Which section answers each item, and what an author must write.

    Args:
        checklist: One of `CHECKLISTS`.
        present: Titles of the sections on the page.
    """
    rows = []
    whole = partly = 0
    for item in checklist.items:
        found = [title for title in item.sections if title in present]
        if not found:
            rows.append([item.number, item.asks, "", AUTHOR])
            continue
        whole, partly = whole + (not item.lacks), partly + bool(item.lacks)
        rows.append([item.number, item.asks, "; ".join(found), f"{AUTHOR}: {item.lacks}" if item.lacks else "answered"])
    rest = len(checklist.items) - whole - partly
    notes = [
        f"Of {len(checklist.items)} items {whole} are answered on this page, {partly} in part, and {rest} not at all.",
        f"Numbers are those of {checklist.source}; the words are not. Fill in the published form for a submission.",
    ]
    return Sheet(checklist.name, ["item", "asks for", "section", "state"], rows, notes)
