"""Estimate extent and severity of disease from opaque shares.

Reads the manifest of `segment --opacities`, and adds the extent from 0 to 8 with an interval that holds a rater's score
in nine of ten images, and its severity (normal-pcr+, mild, moderate, severe) as severity_estimated; or the Brixia score
with its six zones. `evaluate --by severity` uses these severities where nobody rated any, and says so.

No estimate comes from a fit that saw the image or its patient. With --fit the map from shares to scores is fitted here
to the scores of raters, in folds by patient, and kept in grader/ for other images. With --fit or --rated the agreement
with the raters is measured: agreement.json and agreement.png.

Example: cxrtool grade opacities --fit geographic_score -o graded
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, ClassVar

from cxrtool.data.file_names import FITTED_ON
from cxrtool.data.files import sha256_file
from cxrtool.data.splitting.grouping import PATIENT, group_images
from cxrtool.data.tables.manifest import Manifest, read_manifest
from cxrtool.data.tables.missing import missing_words
from cxrtool.data.tables.numbers import decimal
from cxrtool.data.tables.severity import ESTIMATED, SEVERITIES, stratum_of
from cxrtool.data.tables.views import Columns, RowView, cells_of, columns_of
from cxrtool.errors import InputError, UsageError, count_of
from cxrtool.evaluation.scales import SCALES, Scale
from cxrtool.flow import common_options
from cxrtool.flow.folder import Inputs, Plan, StepFolder
from cxrtool.flow.graders import GRADE, NETWORKS, FittedGrader, default_grader, read_grader, write_grader
from cxrtool.flow.settings import RUNNING, Settings
from cxrtool.imaging.regions import NETWORK, PREFIX, SEEN
from cxrtool.options import Options, option

if TYPE_CHECKING:
    from cxrtool.evaluation.metrics.confusion import FloatArray, IntArray

GRADER = "grader"
AGREEMENT, PICTURE = "agreement.json", "agreement.png"
VERSION = 4
FIGURES = {
    "mae": "mean absolute error",
    "bias": "mean of estimated - rated",
    "pearson": "Pearson's r",
    "spearman": "Spearman's r",
    "weighted_kappa": "kappa of severities, quadratic weights",
    "stratum_accuracy": "same severity",
}


@dataclass(frozen=True)
class GradeOptions(Options):
    """The options of `grade`."""

    SHARED: ClassVar[tuple[str, ...]] = ("out", "seed", "root", "verify", *RUNNING, "style")

    manifest: Path = common_options.manifest(effect=False)
    scale: str = option("Score to estimate: {choices}.", next(iter(SCALES)), choices=SCALES)
    grader: Path | None = option(
        "The grader/ of an earlier `grade --fit`.", None, metavar="FOLDER", shown="the one that comes with cxrtool"
    )
    fit: str | None = option(
        "Fit to the scores in these columns; the mean of several raters. For brixia the columns NAME_right_upper, …, "
        "NAME_left_lower.",
        None,
        metavar="COLUMNS",
        shown="",
    )
    rated: str | None = option("Compare with the scores in these columns.", None, metavar="COLUMNS", shown="--fit")
    classes: str | None = option(
        "Classes whose severity is estimated; other images get a score alone.", None, metavar="NAMES", shown="all"
    )

    def names(self, text: str | None) -> list[str]:
        """The names in a list with commas."""
        return [name.strip() for name in (text or "").split(",") if name.strip()]


def run(options: GradeOptions, settings: Settings) -> None:
    """Grade, and print the agreement with raters where there are any."""
    if found := grade(options, settings):
        settings.output.table(*found)


def grade(options: GradeOptions, settings: Settings) -> tuple[list[str], list[list[str]], str] | None:
    """Estimate the score of every image with opaque shares.

    Returns:
        The table of the agreement with raters; None where nobody rated, or there was nothing to do.

    Raises:
        UsageError: Options that exclude one another, or a class that no image has.
        InputError: The manifest has no shares or no such column, or the grader cannot be read.
    """
    if options.fit and options.grader:
        raise UsageError("--fit makes a grader, --grader takes one: choose one")
    scale = SCALES[options.scale]
    manifest = read_manifest(options.manifest, root=settings.root)
    _check(manifest, scale, options)
    folder_of_grader = options.grader or default_grader(options.scale)
    fitted = None if options.fit else read_grader(folder_of_grader)
    if fitted and fitted.grader.scale != options.scale:
        raise InputError(f"{folder_of_grader}: expected a grader for {options.scale}, found {fitted.grader.scale}")
    digests = [sha256_file(folder_of_grader / name) for name in (GRADE, FITTED_ON)] if fitted else []
    identity = {**options.identity(), "grader": digests, "version": VERSION}
    plan = Plan("grade", identity, Inputs.of(manifest, verify=settings.verify), (), ("numpy", "scipy"), seeded=True)
    folder = StepFolder(settings.out, plan, settings)
    if not folder.needs_work():
        return None
    return _grade(options, manifest, scale, fitted, folder, settings)


def _check(manifest: Manifest, scale: Scale, options: GradeOptions) -> None:
    """Check columns and classes."""
    columns = [PREFIX + region for region in scale.regions]
    lacking = next((name for name in columns if name not in manifest.columns), None)
    if lacking:
        raise InputError(
            f"{manifest.name}: expected the column '{lacking}' with the opaque share of a region, found none",
            "`cxrtool segment MANIFEST --opacities -o opacities` writes it",
        )
    for name in {*options.names(options.fit), *options.names(options.rated)}:
        manifest.require(*_columns_of(name, scale))
    labels = set(manifest.column("label")) if "label" in manifest.columns else set()
    for name in options.names(options.classes):
        if name not in labels:
            raise UsageError(f"--classes: expected classes of the manifest, found '{name}'")


def _columns_of(name: str, scale: Scale) -> list[str]:
    return [f"{name}_{region}" for region in scale.regions] if scale.by_region else [name]


def _grade(
    options: GradeOptions,
    manifest: Manifest,
    scale: Scale,
    fitted: FittedGrader | None,
    folder: StepFolder,
    settings: Settings,
) -> tuple[list[str], list[list[str]], str] | None:
    import json

    from cxrtool.data.files import atomic_write
    from cxrtool.evaluation.grading import fit_grader, shares_of

    rows, say = columns_of(manifest.records, manifest.columns), settings.report.say
    shares, kept = shares_of(rows, options.scale, manifest.place)
    seen = cells_of(rows, SEEN)
    unseen = [k for k, index in enumerate(kept) if not seen[index]]
    lost = Counter(
        {"without opaque shares": len(rows) - len(kept), "seen by the opacity network": len(kept) - len(unseen)}
    )
    shares, kept = shares[unseen], [kept[k] for k in unseen]
    if not kept:
        raise InputError(
            f"{manifest.name}: expected images whose opaque shares are of a network that did not see them, found none"
        )
    with folder.build() as build:
        if fitted is None:
            scores = _scores(manifest, kept, options.names(options.fit), scale)
            rated = [k for k, score in enumerate(scores) if score is not None]
            chosen = rows.take([kept[k] for k in rated])
            truth = _array([scores[k] for k in rated], scale)
            grader = fit_grader(options.scale, shares[rated], truth, _patients(chosen), settings.seed)
            patients = len(set(group_images(chosen)))
            described = {
                "rated": options.fit,
                "images": len(chosen),
                "patients": patients,
                NETWORKS: sorted({name for name in cells_of(chosen, NETWORK) if name}),
            }
            write_grader(build.path / GRADER, grader, chosen, described)
            fitted = read_grader(build.path / GRADER)
            say(f"fitted to {count_of(len(chosen), 'rated image')} of {count_of(patients, 'patient')}")
        asked = rows.take(kept)
        nameless = sum(not row.get("sha256") and not row.get(PATIENT) for row in asked)
        if nameless or fitted.names:
            settings.report.warn(
                f"neither sha256 nor {PATIENT}: {nameless} of the images, {len(fitted.names)} of those of the fit; "
                "whether a fit saw them is judged by image_id alone"
            )
        _warn_of_network(fitted, cells_of(asked, NETWORK), settings)
        found = _estimate(fitted, asked, shares)
        added = _cells(found, rows, kept, scale, options.names(options.classes))
        for reason, count in lost.items():
            if count:
                settings.report.warn(f"{count} of {count_of(len(rows), 'image')} {reason}; no estimate")
        _describe(added, scale, settings)
        names = options.names(options.rated) or options.names(options.fit)
        agreement = _compare(manifest, kept, found, names, scale, settings.seed) if names else None
        if names and not agreement:
            settings.report.warn(
                f"no image with an estimate has a score in {', '.join(names)}: nothing to compare with"
            )
        if agreement:
            content, picture = agreement
            atomic_write(build.path / AGREEMENT, json.dumps(content, indent=1) + "\n")
            picture(build.path / PICTURE)
        graded = Columns({**rows.cells, **added}, len(rows))
        build.finish(list(graded.cells), graded, extra={"scale": options.scale})
    if not agreement:
        return None
    content = agreement[0]
    if scale.strata:
        _say_confusion(content, settings)
    return _table(content, scale)


def _warn_of_network(fitted: FittedGrader, names: Sequence[str], settings: Settings) -> None:
    """Warn of shares by another opacity network: another one finds more or less, and the scores are shifted."""
    known = fitted.content.get(NETWORKS) or ()
    others = Counter(name for name in names if name and name not in known)
    if known and others:
        settings.report.warn(
            f"{sum(others.values())} of {count_of(len(names), 'image')} have opaque shares of another opacity network "
            f"({', '.join(sorted(others))}) than the grader was fitted to ({', '.join(known)}); their scores and "
            "severities can be wrong: fit a grader to these shares with --fit, or use the network of the grader"
        )


@dataclass(frozen=True)
class Estimates:
    """The estimates of n images: points of each region (n, R), their sums and the ends of their intervals (n,)."""

    regions: FloatArray
    total: FloatArray
    low: FloatArray
    high: FloatArray


def _estimate(fitted: FittedGrader, rows: Sequence[RowView], shares: FloatArray) -> Estimates:
    """Each image by a fit that did not see it."""
    import numpy as np

    grader, fold_of = fitted.grader, [fitted.fold_of(row) for row in rows]
    regions, ends = np.empty_like(shares), np.empty((len(shares), 2))
    for fold in set(fold_of):
        own = np.array([found == fold for found in fold_of])
        regions[own], ends[own] = grader.regions(shares[own], fold), grader.intervals(shares[own], fold)
    total, (low, high) = regions.sum(1), ends.T
    return Estimates(regions, total, np.minimum(low, total), np.maximum(high, total))


def _cells(
    found: Estimates, rows: Columns, kept: Sequence[int], scale: Scale, classes: Sequence[str]
) -> dict[str, list[str]]:
    """The new columns; empty where there is no estimate."""
    column, regions = scale.estimates[0], found.regions.T if scale.by_region else ()
    cells = {name: [""] * len(rows) for name in scale.estimates}
    for name, numbers in zip(scale.estimates, (found.total, found.low, found.high, *regions), strict=True):
        for index, number in zip(kept, numbers.tolist(), strict=True):
            cells[name][index] = f"{number:.3f}"
    if scale.strata:
        labels = cells_of(rows, "label")
        cells[ESTIMATED] = [
            # By the number that is written, so that it can be checked in the table.
            stratum_of(float(cell)) if cell and (not classes or label in classes) else ""
            for cell, label in zip(cells[column], labels, strict=True)
        ]
    return cells


def _scores(manifest: Manifest, kept: Sequence[int], names: Sequence[str], scale: Scale) -> list[list[float] | None]:
    """The mean score of the raters, of each region or the total alone; None where nobody gave one.

    Raises:
        InputError: A cell is no score of the scale.
    """
    highest = scale.top if scale.by_region else scale.highest
    raters = [_columns_of(name, scale) for name in names]
    missing = {column: missing_words(manifest.column(column)) for columns in raters for column in columns}
    found: list[list[float] | None] = []
    rows = manifest.records
    for index in kept:
        row, given = rows[index], []
        for columns in raters:
            cells = [row[column].strip() for column in columns]
            if not all(
                cell and cell.casefold() not in missing[column] for column, cell in zip(columns, cells, strict=True)
            ):
                continue
            values = [value for cell in cells if (value := decimal(cell)) is not None]
            if len(values) < len(cells) or not all(0 <= value <= highest for value in values):
                raise InputError(
                    f"{manifest.place(index)}: expected a score from 0 to {highest}, found '{', '.join(cells)}'"
                )
            given.append(values)
        found.append([sum(points) / len(given) for points in zip(*given, strict=True)] if given else None)
    return found


def _array(scores: Sequence[list[float] | None], scale: Scale) -> FloatArray:
    import numpy as np

    if not scores:
        raise InputError("expected images with a score of a rater, found none")
    values = np.array(scores, np.float64)
    return values if scale.by_region else values[:, 0]


def _patients(rows: Sequence[RowView]) -> IntArray:
    """The patient of each image, numbered by the least id of their images: whatever the order of the rows."""
    import numpy as np

    groups, least = group_images(rows), dict[int, str]()
    for row, group in zip(rows, groups, strict=True):
        least[group] = min(row["image_id"], least.get(group, row["image_id"]))
    numbers = {group: number for number, group in enumerate(sorted(least, key=least.__getitem__))}
    return np.array([numbers[group] for group in groups], np.intp)


def _compare(
    manifest: Manifest, kept: Sequence[int], found: Estimates, names: Sequence[str], scale: Scale, seed: int
) -> Any:
    """The content of `agreement.json` and what draws its picture; None where no estimate has a rating."""
    import numpy as np

    from cxrtool.evaluation.metrics.agreement import Agreement, as_json
    from cxrtool.evaluation.plots.agreement import draw_agreement

    scores = _scores(manifest, kept, names, scale)
    rated = [k for k, score in enumerate(scores) if score is not None]
    if not rated:
        return None
    truth = _array([scores[k] for k in rated], scale)
    records = manifest.records
    patients = _patients([records[kept[k]] for k in rated])
    totals, estimates = truth.sum(1) if scale.by_region else truth, found.total[rated]
    strata = None
    if scale.strata:
        one, other = (
            np.array([SEVERITIES.index(stratum_of(round(float(value), 3))) for value in values])
            for values in (estimates, totals)
        )
        strata = one, other
    agreement = Agreement(estimates, totals, patients, strata, len(SEVERITIES))
    # As they are written; a rating is often exactly the end of an interval.
    ends, written = (np.round(numbers, 3) for numbers in ((found.low[rated], found.high[rated]), totals))
    inside = (ends[0] <= written) & (written <= ends[1])
    content: dict[str, Any] = {
        "score": scale.about,
        "raters": list(names),
        "images": len(rated),
        "patients": len(set(patients.tolist())),
        "total": as_json(agreement.figures(seed)),
        "in_interval": float(inside.mean()),
    }
    if scale.strata:
        content |= {"strata": list(SEVERITIES), "confusion": agreement.confusion()}
    if scale.by_region:
        points = found.regions[rated]
        whose = np.repeat(patients, points.shape[1])
        content["regions"] = as_json(Agreement(points.ravel(), truth.ravel(), whose).figures(seed))
    return content, lambda path: draw_agreement(path, estimates, totals, scale.highest, scale.column)


def _describe(added: dict[str, list[str]], scale: Scale, settings: Settings) -> None:
    values = [float(cell) for cell in added[f"{scale.column}_estimated"] if cell]
    of_all = f"{median(values):.1f} of {scale.highest} in the median"
    settings.report.say(f"{count_of(len(values), 'image')}; {scale.column} {of_all}")
    if scale.strata:
        counts = Counter(added[ESTIMATED])
        named = ", ".join(f"{counts[name]} {name}" for name in SEVERITIES)
        settings.report.say(f"estimated, not rated: {named}")


def _say_confusion(content: dict[str, Any], settings: Settings) -> None:
    lines = [[name, *map(str, counts)] for name, counts in zip(SEVERITIES, content["confusion"], strict=True)]
    table = settings.output.aligned(["rated \\ estimated", *SEVERITIES], lines)
    settings.report.say(table)


def _table(content: dict[str, Any], scale: Scale) -> tuple[list[str], list[list[str]], str]:
    def lines(figures: dict[str, Any], what: str) -> list[list[str]]:
        return [
            [f"{FIGURES[name]}{what}", _cell(figures[name]), _ends(figures[name])]
            for name in FIGURES
            if name in figures
        ]

    table = lines(content["total"], "")
    if scale.by_region:
        table += lines(content["regions"], ", zones")
    table.append(["rating inside the interval of 0.9", f"{content['in_interval']:.2f}", "-"])
    title = (
        f"{scale.column} against {', '.join(content['raters'])}: {count_of(content['images'], 'image')} of "
        f"{count_of(content['patients'], 'patient')}; read from the same pixels, by fits that saw none of them"
    )
    return ["agreement", "value", "95 % interval"], table, title


def _cell(measure: dict[str, Any]) -> str:
    return "-" if measure["value"] is None else f"{measure['value']:.2f}"


def _ends(measure: dict[str, Any]) -> str:
    return "-" if measure["low"] is None else f"{measure['low']:.2f}-{measure['high']:.2f}"
