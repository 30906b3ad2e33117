"""The division of the images in words, for the methods: what the table of splits shows, and how it was made.

The record of `cxrtool split` is the column `made_by` of `splits.csv`. A table that was made by hand has none: then only
what the table shows is stated, and the rest is left to the author in square brackets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cxrtool.data.splitting.divider import parse_holdout
from cxrtool.data.splitting.grouping import PATIENT, RELATED, group_images, identities
from cxrtool.data.splitting.made_by import BETWEEN, parse
from cxrtool.data.splitting.splits import SUBSETS, Splits, known_as
from cxrtool.data.tables.manifest import Row
from cxrtool.errors import UsageError
from cxrtool.evaluation.tables import count_of
from cxrtool.options import flag_of
from cxrtool.reporting.methods import listed

Made = Mapping[str, str]
"""The options of one command line of `cxrtool split`."""

PURPOSES = {"train": "training", "validation": "validation", "test": "test"}

NOT_RECORDED = (
    "How this division was made is not recorded. [Write how the images were divided, by what the subsets were "
    "stratified, and whether all images of a patient were kept in one subset.]"
)


def division_in_words(splits: Splits, rows: Sequence[Row], *, allowed: bool | None) -> str:
    """The division of the images, as one paragraph.

    Args:
        splits: The division.
        rows: The images of the study, one row per radiograph.
        allowed: Whether training allowed a patient in two subsets; None where there was no training.
    """
    sentences = ["Division.", _shown(splits, rows)]
    commands = [_commands(line) for line in splits.made_by]
    if not commands:
        sentences.append(NOT_RECORDED)
    elif len(commands) > 1:
        sentences.append(f"Its table was joined from divisions that were made in {len(commands)} ways.")
    for number, (line, command) in enumerate(zip(splits.made_by, commands, strict=True), 1):
        sentences += [f"Way {number}:"] if len(commands) > 1 else []
        sentences.append(_made_in_words(line, command, rows))
    if not commands or not all(command and command[0].get("group") == PATIENT for command in commands):
        sentences.append(_overlaps_in_words(splits, rows))
    if allowed:
        sentences.append("A patient or an image may be in two subsets, which was explicitly allowed (--allow-leakage).")
    elif allowed is not None:
        sentences.append(
            "Before training it was checked that no patient and no image (by the digest of its pixels) is in two "
            "subsets of a division."
        )
    return " ".join(sentences)


def _shown(splits: Splits, rows: Sequence[Row]) -> str:
    """What the table shows: repeats, folds and sizes."""
    study = {row["image_id"] for row in rows}
    # A split of one manifest also divides a smaller one.
    known = {run: {i: s for i, s in subsets.items() if i in study} for run, subsets in splits.runs.items()}
    runs = known if any(known.values()) else splits.runs
    tests: dict[str, list[set[str]]] = {}
    for (repeat, _), subsets in runs.items():
        tests.setdefault(repeat, []).append({i for i, subset in subsets.items() if subset == "test"})
    folds = {len(parts) for parts in tests.values()}
    disjoint = all(sum(map(len, parts)) == len(set().union(*parts)) for parts in tests.values())
    sizes = ", ".join(f"{_size(list(runs.values()), name)} for {PURPOSES[name]}" for name in SUBSETS[:-1])
    sizes += f" and {_size(list(runs.values()), SUBSETS[-1])} for {PURPOSES[SUBSETS[-1]]}"
    if len(runs) == 1:
        return f"The images were divided once: {sizes}."
    if folds == {1}:
        how = f"were divided {len(runs)} times"
    elif len(folds) == 1 and disjoint:
        often = f"{len(tests)} times " if len(tests) > 1 else ""
        how = f"were divided {often}into {folds.pop()} folds, of which each was the test set once"
    else:
        how = f"have {len(runs)} divisions in {count_of(len(tests), 'repeat')}"
    return f"The images {how}. In each division there were {sizes}."


def _size(runs: Sequence[Made], name: str) -> str:
    """The number and share of the images of a subset, as a range over the divisions."""
    counts = [sum(subset == name for subset in subsets.values()) for subsets in runs]
    shares = [round(100 * count / (len(subsets) or 1)) for count, subsets in zip(counts, runs, strict=True)]
    return f"{_span(counts)} ({_span(shares)} %)" if any(counts) else "none"


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def _commands(line: str) -> list[dict[str, str]]:
    try:
        return parse(line)
    except ValueError:
        return []


def _made_in_words(line: str, commands: Sequence[Made], rows: Sequence[Row]) -> str:
    found = []
    try:
        if commands and "within" in commands[0]:
            found.append(NOT_RECORDED.replace("this division", "the original division", 1))
        for made in commands:
            known = [text for name, words in SENTENCES.items() if name in made and (text := words(made, rows))]
            further = [f"{flag_of(name)} {value}" for name, value in made.items() if name not in SENTENCES]
            found += [*known, *([f"Further options were {listed(further)}."] if further else [])]
    except (KeyError, ValueError, UsageError):
        found = []
    return " ".join(found) or f"It was made by the command `{line}`."


def _times(made: Made) -> str:
    repeats = int(made.get("repeats", 1))
    return f" {repeats} times" if repeats > 1 else ""


def _holdout(made: Made, rows: Sequence[Row]) -> str:
    shares = [f"{100 * share:.3g} % for {PURPOSES[name]}" for name, share in parse_holdout(made["holdout"]).items()]
    return f"The division was drawn at random{_times(made)} by `cxrtool split`, with shares of {listed(shares)}."


def _folds(made: Made, rows: Sequence[Row]) -> str:
    return f"The division into {made['folds']} folds was drawn at random{_times(made)} by `cxrtool split`."


def _leave_out(made: Made, rows: Sequence[Row]) -> str:
    return (
        f"By `cxrtool split` the images of each value of {made['leave_out']} were the test set once, and the images of "
        "all other values were for training."
    )


def _from_column(made: Made, rows: Sequence[Row]) -> str:
    return (
        f"The subsets were taken by `cxrtool split` from the column {made['from_column']} of the table of images. "
        "[Write who divided the images, and how.]"
    )


def _within(made: Made, rows: Sequence[Row]) -> str:
    text = "This division was thinned out by `cxrtool split`: "
    if "exclude" in made:
        text += f"images with {listed(made['exclude'].split(BETWEEN))} were left out"
        text += ", and " if "equal" in made else ""
    if "equal" in made:
        text += f"in each division, a subset kept as many images of each value of {made['equal']} as it had of the "
        text += "rarest value"
    if "keep" not in made:
        return f"{text}."
    kept = listed([PURPOSES.get(name, name) for name in made["keep"].split(",")])
    return f"{text}. Of the images for {kept}, all were kept."


def _validation(made: Made, rows: Sequence[Row]) -> str:
    share = float(made["validation"])
    if not share:
        return "No images were kept for validation."
    return f"Of the images that were not for test, {100 * share:.3g} % were kept for validation."


def _stratify(made: Made, rows: Sequence[Row]) -> str:
    return f"The subsets were stratified by {' and, within it, by '.join(made['stratify'].split(','))}."


def _group(made: Made, rows: Sequence[Row]) -> str:
    column = made["group"]
    alone = sum(not name for name in identities(rows, column))
    kinds = [words for name, words in RELATED.items() if any(row.get(name) for row in rows)]
    if alone < len(rows):
        kinds.insert(0, f"images of one patient ({column})" if column == PATIENT else f"images with the same {column}")
    found = [f"{_capital(listed(kinds))} were kept together in one subset."] if kinds else []
    if alone == len(rows):
        found.append(f"No image has a {column}; each counted as a separate patient.")
    elif alone:
        found.append(f"{alone} of {len(rows)} images have no {column}; each of these counted as a separate patient.")
    return " ".join(found)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _seed(made: Made, rows: Sequence[Row]) -> str:
    return f"The seed of the draw was {made['seed']}."


def _told_by_others(made: Made, rows: Sequence[Row]) -> str:
    return ""


SENTENCES: dict[str, Callable[[Made, Sequence[Row]], str]] = {
    "holdout": _holdout,
    "folds": _folds,
    "leave_out": _leave_out,
    "from_column": _from_column,
    "within": _within,
    "equal": _told_by_others,
    "exclude": _told_by_others,
    "keep": _told_by_others,
    "repeats": _told_by_others,
    "validation": _validation,
    "stratify": _stratify,
    "group": _group,
    "seed": _seed,
}
"""The sentence of each option of `cxrtool split`, in the order of the paragraph."""


def _overlaps_in_words(splits: Splits, rows: Sequence[Row]) -> str:
    """Whether a patient is in two subsets, by the table and the images of the study."""
    groups = group_images(rows)
    nameless = sum(not name for name in identities(rows))
    if nameless == len(rows):
        return f"No image has a {PATIENT}, so whether a patient is in two subsets is not known."
    found: set[int] = set()
    for subsets in splits.runs.values():
        sides: dict[int, str] = {}
        for row, group in zip(rows, groups, strict=True):
            side = subsets.get(known_as(row, subsets), "")
            if side and sides.setdefault(group, side) != side:
                found.add(group)
    if found:
        verb = "is" if len(found) == 1 else "are"
        return f"{count_of(len(found), 'patient')} {verb} in more than one subset of a division."
    known = f", as far as the {len(rows) - nameless} images with a {PATIENT} show" if nameless else ""
    return f"No patient is in two subsets of a division{known}."
