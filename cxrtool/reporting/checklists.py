"""The items of reporting checklists, and which section of a report answers each.

The items of CLAIM (2024 update: Tejani et al. 2024, Radiology: Artificial Intelligence 6:e240300) and of TRIPOD+AI
(Collins et al. 2024, BMJ 385:e078378) have their own numbers and our own words; use the published form for a
submission. A section answers an item only where it is on the page. What a program cannot know, an author must write.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cxrtool.evaluation.tables import Sheet
from cxrtool.reporting.titles import (
    AUDIT,
    CURVES,
    ERRORS,
    EXTERNAL,
    FLOW,
    HEATMAPS,
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
        number: The number in the checklist, such as `12c`.
        asks: The topic.
        sections: Titles of sections that answer it, as far as a program can.
        lacks: What remains for the author where a section is present; empty where nothing does.
    """

    number: str
    asks: str
    sections: tuple[str, ...] = ()
    lacks: str = ""


@dataclass(frozen=True)
class Checklist:
    """A checklist: its name, its publication, and its items in order."""

    name: str
    source: str
    items: tuple[Item, ...]


_CLAIM = (
    Item("1", "title or abstract: identified as a study of AI, with the kind of AI"),
    Item("2", "abstract: summary of design, methods, results and conclusions"),
    Item("3", "background: the clinical problem, and the intended use of the model"),
    Item("4", "aims and hypotheses"),
    Item("5", "prospective or retrospective"),
    Item("6", "goal of the study: a new model, feasibility, a comparison"),
    Item("7", "sources of the data", (TABLE_ONE, FLOW), "hospitals, dates and access to the data"),
    Item("8", "inclusion and exclusion criteria", (FLOW,), "the clinical criteria by which patients were selected"),
    Item("9", "preprocessing of the images", (METHODS,)),
    Item("10", "selection of a subset of the data", (FLOW,), "the reason, where a subset was selected"),
    Item("11", "de-identification of the data"),
    Item("12", "missing data, and how they were handled", (TABLE_ONE,), "how they were handled"),
    Item("13", "acquisition of the images: devices, views, settings", (TABLE_ONE,), "devices and settings"),
    Item("14", "definition of the reference standard"),
    Item("15", "why that reference standard was chosen"),
    Item("16", "who made the reference labels, and their qualifications"),
    Item("17", "annotation of the test set"),
    Item("18", "agreement between and within annotators"),
    Item("19", "how data were divided", (METHODS, FLOW)),
    Item("20", "level at which the subsets are disjoint: images, patients, hospitals", (METHODS,)),
    Item("21", "intended size of the test set, and why"),
    Item("22", "the model in detail: inputs, outputs, layers", (METHODS, SETTINGS)),
    Item("23", "software, with versions", (MACHINES,)),
    Item("24", "initialisation of the weights", (METHODS,)),
    Item("25", "training of the model: augmentation, settings, stopping", (METHODS, SETTINGS, CURVES)),
    Item("26", "selection of the final model", (METHODS,), "whether other settings were tried before"),
    Item("27", "ensemble of models, if any", (METHODS,), "anything beyond the folds"),
    Item("28", "metrics of performance", (METHODS, RESULTS)),
    Item("29", "uncertainty and significance", (METHODS, RESULTS)),
    Item("30", "robustness or sensitivity analysis", (AUDIT,), "what else was varied"),
    Item("31", "methods of explanation, and their validation", (HEATMAPS, ERRORS), "by whose outlines"),
    Item("32", "evaluation on internal data", (RESULTS,)),
    Item("33", "testing on external data", (EXTERNAL,), "what the other hospital is, and who its patients are"),
    Item("34", "registration, where it is a clinical trial"),
    Item("35", "numbers included and excluded, as a flow diagram", (FLOW,), "exclusions before the first file"),
    Item("36", "characteristics of the patients in each subset", (TABLE_ONE,), "what is not in the manifest"),
    Item("37", "performance, with uncertainty, overall and by subgroup", (RESULTS,)),
    Item("38", "diagnostic accuracy, with its precision", (RESULTS,)),
    Item("39", "analysis of errors", (ERRORS,), "a radiologist's reading of them"),
    Item("40", "limitations", (LIMITS, AUDIT), "those of the study's own design"),
    Item("41", "implications for practice"),
    Item("42", "where the protocol or further details are", (MACHINES,), "the protocol"),
    Item("43", "whether software, model and data are available"),
    Item("44", "funding, and the role of the funders"),
)

_TRIPOD = (
    Item("1", "title: a prediction model developed or evaluated, for whom, and for which outcome"),
    Item("2", "abstract, by the TRIPOD+AI checklist for abstracts"),
    Item("3a", "background: the decision to support, and existing models"),
    Item("3b", "for which patients, in which setting, and used by whom"),
    Item("3c", "known differences in health between groups of people"),
    Item("4", "aims: development, evaluation or both"),
    Item(
        "5a",
        "sources of the data, separately for development and evaluation",
        (TABLE_ONE, FLOW),
        "how representative they are",
    ),
    Item("5b", "dates of the data"),
    Item("6a", "setting, and the number of centres", (TABLE_ONE,), "location and kind of the centres"),
    Item("6b", "who was eligible", (FLOW,), "the clinical criteria"),
    Item("6c", "treatments, where relevant"),
    Item("7", "how data were prepared and checked, in the same way in all groups", (METHODS, AUDIT)),
    Item("8a", "the outcome: definition, time and method of assessment"),
    Item("8b", "who assessed it, where it needs judgement"),
    Item("8c", "whether the assessment was blinded to the images"),
    Item("9a", "why these predictors: here, the radiograph"),
    Item("9b", "how and when the images were taken", (TABLE_ONE,), "devices, and the time between image and outcome"),
    Item("9c", "who assessed predictors, where that needs judgement"),
    Item("10", "justification of the sample size"),
    Item("11", "missing data, and how they were handled", (TABLE_ONE,), "how they were handled"),
    Item("12a", "how data were divided for development and evaluation", (METHODS, FLOW)),
    Item("12b", "how images were given to the model", (METHODS,)),
    Item(
        "12c",
        "kind of model, how it was built and tuned, internal validation",
        (METHODS, SETTINGS, CURVES),
        "why this kind of model; what else was tried",
    ),
    Item("12d", "how differences between clusters such as hospitals were handled", (AUDIT,), "what follows from them"),
    Item("12e", "metrics and plots of performance", (METHODS, RESULTS)),
    Item("12f", "whether the model was updated after its evaluation", (METHODS,), "any later updating"),
    Item("12g", "how predictions were computed in the evaluation", (METHODS,)),
    Item("13", "handling of class imbalance", (METHODS,), "why"),
    Item(
        "14", "what was done for fairness between groups", (RESULTS,), "what was done, in addition to results by group"
    ),
    Item("15", "output of the model, and how its thresholds were chosen", (METHODS,)),
    Item("16", "how evaluation data differ from those of development", (TABLE_ONE, AUDIT)),
    Item("17", "ethical approval and consent"),
    Item("18a", "funding, and the funders' part"),
    Item("18b", "conflicts of interest"),
    Item("18c", "where the protocol is"),
    Item("18d", "registration"),
    Item("18e", "availability of the data"),
    Item("18f", "availability of the code", (MACHINES,), "availability of code and model"),
    Item("19", "involvement of patients and the public"),
    Item("20a", "flow of participants, with and without the outcome", (FLOW,), "exclusions before the first file"),
    Item("20b", "their characteristics, overall and by source, with missing data", (TABLE_ONE,)),
    Item("20c", "how predictors are distributed in development and evaluation", (TABLE_ONE,)),
    Item("21", "participants and outcome events in each analysis", (FLOW, TABLE_ONE)),
    Item("22", "the model itself, so that others can use it", (SETTINGS, MACHINES), "where it is available"),
    Item("23a", "performance with intervals, in important subgroups too", (RESULTS,)),
    Item("23b", "how performance differs between clusters", (RESULTS, AUDIT), "evaluation at other hospitals"),
    Item("24", "results of updating the model, if done"),
    Item("25", "what the results mean, fairness included"),
    Item("26", "limitations and their effect on the conclusions", (LIMITS, AUDIT), "those of the study's own design"),
    Item("27a", "handling of images of poor quality or with missing input", (AUDIT,), "the rule for practice"),
    Item("27b", "what users must do and know"),
    Item("27c", "next steps, and where the model may apply"),
)

CHECKLISTS = {
    "claim": Checklist("CLAIM, 2024 update", "Tejani et al. 2024, Radiology: Artificial Intelligence", _CLAIM),
    "tripod-ai": Checklist("TRIPOD+AI", "Collins et al. 2024, BMJ", _TRIPOD),
}
"""The checklists by the name that `--checklist` takes."""


def tabulate(checklist: Checklist, present: Collection[str]) -> Sheet:
    """A table of the sections that answer each item, given the titles of the sections on the page."""
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
        f"The numbers are those of {checklist.source}, the words are ours. Use the published form for a submission.",
    ]
    return Sheet(checklist.name, ["item", "topic", "section", "state"], rows, notes)
