"""Run models on images: missing preprocessing is replayed, leakage is refused, then every model predicts.

For a model of twins, every radiograph becomes one image per generator.
"""

from __future__ import annotations

import contextlib
import json
import pickle
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cxrtool.data.files import locked, saying_what_fails
from cxrtool.data.tables.manifest import PATH_COLUMNS, Manifest, Row
from cxrtool.data.tables.predictions import Predictions
from cxrtool.data.tables.twins import is_twin, radiograph_id, twin_class, twin_id, twin_rows
from cxrtool.data.tables.views import Packed, RowView, columns_of
from cxrtool.errors import InputError, LeakageError, NothingReadError
from cxrtool.flow import common_options
from cxrtool.flow import run as runs
from cxrtool.flow.assignment import Seen, changed_pixels
from cxrtool.flow.chain import Chain, before_twins, chain_of, ends_with_twins, locate, missing_steps
from cxrtool.flow.cluster import Cluster
from cxrtool.flow.folder import AT, Inputs, Plan, without_paths
from cxrtool.flow.journal import Former, Journal, Marks, Records
from cxrtool.flow.parallel import map_items, run_each
from cxrtool.flow.replaying import Seen as SeenImage
from cxrtool.flow.replaying import look, modules_of
from cxrtool.flow.run import model_files
from cxrtool.flow.settings import Settings
from cxrtool.flow.share import Share, held, shares_of_file
from cxrtool.models.description import Input, ModelDescription
from cxrtool.models.onnx_file import is_exported
from cxrtool.options import Options, argument, option

if TYPE_CHECKING:
    import numpy as np
    import torch

    from cxrtool.training.inference import Ensemble, Member
    from cxrtool.training.twin_maker import TwinMaker


class TwinInput:
    """The `transform` at the end of a model's chain."""

    def __init__(self, entry: Mapping[str, Any], form: Input, device: torch.device) -> None:
        from cxrtool.flow.twins import VERSION
        from cxrtool.training.twin_maker import TwinMaker

        if entry["version"] != VERSION:
            raise InputError(
                f"{entry[AT]}: expected twins of three channels, found a model of grey ones, by an older cxrtool",
                "train it again: `cxrtool train MANIFEST --splits SPLITS --transform RUN`",
            )

        self.maker: TwinMaker = TwinMaker(Path(entry[AT]), device)
        self.size, self.fit = form.size, form.fit

    @property
    def names(self) -> list[str]:
        """The generators, in order."""
        return self.maker.names

    @property
    def form(self) -> Input:
        """The size and fit of a radiograph before its twins are made."""
        return Input(self.maker.form.size, self.maker.form.fit)

    def make(self, pictures: Sequence[np.ndarray]) -> list[list[np.ndarray]]:
        """For each radiograph (S, S) at `form` its twins (s, s, 3) at the model's input size, one a generator."""
        from cxrtool.imaging.resize import prepare_pixels

        return [[prepare_pixels(twin, self.size, self.fit) for twin in twins] for twins in self.maker.make(pictures)]


def answered_as(row: RowView, repeat: str, fold: str) -> dict[str, str]:
    """The id and label of an image in a table of predictions.

    Repeat and fold are those of the fold that predicts; empty for several folds, or for a model without a fold.

    >>> answered_as({"image_id": "a_P", "parent_id": "a", "generator": "P", "label": "N"}, "0", "1")
    {'image_id': 'a_r0f1_P', 'label': 'N@P'}
    >>> answered_as({"image_id": "a", "label": "N"}, "0", "1")
    {'image_id': 'a', 'label': 'N'}
    """
    label = row.get("label", "")
    if not is_twin(row):
        return {"image_id": row["image_id"], "label": label}
    # The ids of images from `transform` already have the fold.
    name = row["image_id"] if row.get("repeat") else twin_id(row["parent_id"], repeat, fold, row["generator"])
    return {"image_id": name, "label": twin_class(label, row["generator"])}


def radiographs(rows: Iterable[RowView]) -> Packed:
    """The rows of radiographs: the twins of a radiograph become one row with its id.

    >>> [row["image_id"] for row in radiographs(twin_rows({"image_id": "a"}, "", "", ["P", "N"]))]
    ['a']
    """
    found, known = Packed(), set[str]()
    for row in rows:
        if (name := radiograph_id(row)) not in known:
            known.add(name)
            found.append({**row, "image_id": name})
    return found


@dataclass(frozen=True)
class Question(Options):
    """How models are run on images."""

    model: Path = argument("A model folder, an ONNX model, or a run, whose folds are averaged.")
    sources: tuple[str, ...] = common_options.images()
    tta: bool = option("Average with the prediction for the mirrored image.", False)
    batch_size: int = option("Images per batch.", 32, minimum=1, effect=False)
    max_pixels: int | None = common_options.max_pixels()


class Answer(NamedTuple):
    """The answer of the models for an image, or for one of its twins.

    Attributes:
        row: The image.
        probabilities: (members, K).
        properties: The image as the first model sees it, and in what it is unlike the training images: the columns of
            `properties.COLUMNS`.
    """

    row: Row
    probabilities: Any
    properties: Row


class _Asked(NamedTuple):
    """What models with the same preprocessing answered: the record of each image by its id and `way`, and its twins."""

    records: Records
    way: str
    twins: Sequence[str]

    def of(self, row: RowView) -> list[Answer]:
        """The answer for an image, or for each of its twins; none where it could not be read."""
        record = self.records.get(f"{row['image_id']} {self.way}")
        return [] if record is None else _answers(row, record, self.twins)


@dataclass(frozen=True)
class Answers(Iterable[Answer]):
    """The answers of models for images, in the order of the rows; each is read again when it is asked for.

    Attributes:
        rows: The images.
        asked: The models, one for each preprocessing.
        change: Applied to the probabilities (members, K) of each answer.
    """

    rows: Sequence[RowView]
    asked: Sequence[_Asked]
    change: Callable[[np.ndarray], np.ndarray] | None = None

    def __iter__(self) -> Iterator[Answer]:
        import numpy as np

        first, *others = self.asked
        for row in self.rows:
            more = [{one.row["image_id"]: one.probabilities for one in other.of(row)} for other in others]
            for one in first.of(row):
                found = np.concatenate([one.probabilities, *(joined[one.row["image_id"]] for joined in more)])
                yield one._replace(probabilities=self.change(found) if self.change else found)


def answer(
    options: Question, settings: Settings, folders: Sequence[Path], manifest: Manifest, earlier: Earlier | None = None
) -> tuple[list[Member], Answers, list[Row]]:
    """Run models on the images of a manifest, after the preprocessing that these still lack.

    What `earlier` has of the same models and images is taken from it.

    Returns:
        The models; the answer for each image that could be read; the rejects.

    Raises:
        InputError: No image can be read, or their preprocessing differs from that of the models.
        LeakageError: A model was trained on an image.
    """
    from cxrtool.training.device import choose_device, local_randomness

    earlier = earlier or Earlier(Journal(), Marks(""))
    with local_randomness(settings.seed, settings.threads):
        # onnxruntime is told to use a GPU; by itself it may have no support for one.
        exported = settings.device == "auto" and any(map(is_exported, folders))
        device = choose_device("cpu" if exported else settings.device)
        ensembles = group_models(folders, device, _precision(settings, device))
        done = chain_of(Path(path) for path in manifest.column("path"))
        chains = []
        for ensemble in ensembles:
            folder = ensemble.members[0].folder
            name = str(options.model if len(ensembles) == 1 else folder)
            chains.append(missing_steps(locate(ensemble.description.chain, folder), done, name, manifest.name))
        seen = Seen.of(folders)
        if not settings.allow_leakage:
            seen.refuse(manifest.records, settings)
        pairs = zip(ensembles, chains, strict=True)
        colour = ends_with_twins(done)
        found = [ask(options, settings, one, manifest, chain, earlier, colour=colour) for one, chain in pairs]
    answers, rejects = Answers(manifest.records, [asked for asked, _ in found]), found[0][1]
    if len(rejects) == len(manifest) and not settings.part:
        raise NothingReadError(manifest.name, len(rejects), rejects[0]["path"], rejects[0]["reason"])
    # Again, now that images without a digest in the table have one.
    seen.refuse(radiographs(one.row for one in answers), settings)
    return [member for ensemble in ensembles for member in ensemble.members], answers, rejects


def _precision(settings: Settings, device: torch.device) -> str:
    """Predictions are few and should be exact, so bf16 is used only on request."""
    from cxrtool.training.device import choose_precision

    return "fp32" if settings.precision == "auto" else choose_precision(settings.precision, device)


_LIBRARIES = ("numpy", "opencv-python-headless", "torch")
_OTHERWISE_MARKED = ("model", "sources", "batch_size", "members", "calibrated", "partial")
"""Options of `predict` that do not change the answers for an image, or that are marked by the content of files."""


@dataclass
class Earlier:
    """What is known of images from an earlier table of the same predictions, or from a run that was interrupted.

    Attributes:
        journal: The answers of each image, by model; hidden beside the table until that is written.
        marks: Of the images.
        taken: The images whose answers were found.
    """

    journal: Journal
    marks: Marks
    taken: set[str] = field(default_factory=set)

    def find(self, marks: Mapping[str, str]) -> Records:
        """The answers that are known, by key."""
        found, taken = self.journal.find(marks)
        if taken:
            self.taken |= {key.rpartition(" ")[0] for key in found}
        return found

    @classmethod
    @contextlib.contextmanager
    def beside(
        cls, table: Path, name: str, digests: Mapping[str, str], options: Question, settings: Settings
    ) -> Iterator[Earlier]:
        """Open the journal of a table of predictions that is going to be written.

        Args:
            table: The table.
            name: Of the journal beside the table that it replaces.
            digests: The entries of files in the `run.json` beside it.
            options: Of the command.
            settings: With `--force` nothing is taken over.
        """
        identity = {**options.identity(), "precision": settings.precision}
        plan = Plan("predict", identity, Inputs.of(), (), _LIBRARIES, threaded=True)
        share = Share.of(settings)
        hidden = share.aside(table) if share else table.parent / f".{table.name}.partial"
        with saying_what_fails(table), contextlib.ExitStack() as locks:
            table.parent.mkdir(parents=True, exist_ok=True)
            if share:
                locks.enter_context(locked(share.lock(table), wait=False))
            aside = [] if share else shares_of_file(table)
            locks.enter_context(held(table, aside))
            if settings.force or hidden.is_symlink():
                hidden.unlink(missing_ok=True)
            former = [Former.of(table.parent, digests, name), *(Former.of(table.parent, None, p.name) for p in aside)]
            journal = Journal(hidden, [] if settings.force else [one for one in former if one])
            try:
                yield cls(journal, Marks(plan.way(settings, _OTHERWISE_MARKED)))
            except BaseException as error:
                journal.close()
                if isinstance(error, LeakageError) or not hidden.stat().st_size:
                    hidden.unlink()
                raise
            journal.close()
            if not share or not hidden.stat().st_size:
                for path in (hidden, *aside):
                    path.unlink()


def group_models(folders: Sequence[Path], device: torch.device, precision: str) -> list[Ensemble]:
    """Group models by their preprocessing; an `InputError` if one is no model, or has other classes or input."""
    from cxrtool.training.inference import Ensemble

    groups: dict[str, list[Path]] = {}
    first = ModelDescription.read(folders[0])
    for folder in folders:
        description = ModelDescription.read(folder)
        for name in ("classes", "input"):
            if getattr(description, name) != getattr(first, name):
                raise InputError(
                    f"{folder}: expected the same {name} as in {folders[0]}, found {getattr(description, name)} "
                    f"instead of {getattr(first, name)}",
                    "run them one by one",
                )
        groups.setdefault(json.dumps(description.chain, sort_keys=True), []).append(folder)
    return [Ensemble(group, device, precision) for group in groups.values()]


def ask(
    options: Question,
    settings: Settings,
    ensemble: Ensemble,
    manifest: Manifest,
    chain: Chain,
    earlier: Earlier,
    *,
    colour: bool = False,
) -> tuple[_Asked, list[Row]]:
    """Decode, replay the chain, and predict; images are read while the network computes, and none is kept.

    Where the chain ends with generators, the model is run on all twins of each image. With `colour` the images are
    twins already, and keep their three channels. What `earlier` knows is not read again.

    Returns:
        What was answered for the images that could be read; the rejects.
    """
    asker = _Asker(options, ensemble, chain, colour=colour)
    models = [file for one in ensemble.members for file in model_files(one.folder)]
    way = earlier.marks.of(without_paths(chain), colour, ensemble.device.type, options.batch_size, files=models)
    read_of = ("sha256", "warning", "mask_area")
    marks = {
        f"{row['image_id']} {way[:8]}": earlier.marks.of(
            way, [row.get(name) or "" for name in read_of], files=[row["path"]]
        )
        for row in manifest.records
    }
    known = earlier.find(marks)
    pending = [row for row in manifest.records if f"{row['image_id']} {way[:8]}" not in known]
    if cluster := Cluster.of(settings):
        work = partial(_ask_batch, way=asker.described(settings))
        records = cluster.map(work, pending, asker.at_once)
    else:
        paths = (Path(row["path"]) for row in pending)
        seen = map_items(asker.look, paths, workers=settings.workers, preload=modules_of(asker.before))
        records = asker.answer_all(zip(pending, (result for _, result in seen), strict=True))
    rejects: list[Row] = []
    with settings.report.progress("predicting", len(pending)) as advance:
        for row, record in records:
            if isinstance(record, InputError):
                rejects.append({"path": row["path"], "reason": record.message.removeprefix(f"{row['path']}: ")})
            else:
                key = f"{row['image_id']} {way[:8]}"
                earlier.journal.add(key, record, marks[key])
            advance(1)
    return _Asked(known, way[:8], asker.names), rejects


class _Asker:
    """Models with the same preprocessing, and what is done with an image before they answer.

    Attributes:
        before: The missing preprocessing, but for generators.
        look: Reads an image as the models see it.
        at_once: Images in a batch.
        names: The generators; none where images are not twins.
    """

    def __init__(self, options: Question, ensemble: Ensemble, chain: Chain, *, colour: bool) -> None:
        from cxrtool.imaging import properties

        self.options, self.ensemble, self.chain, self.colour = options, ensemble, chain, colour
        form, self.usual = ensemble.description.input, ensemble.description.usual
        self.training = properties.of_models(member.description.usual for member in ensemble.members)
        self.before, entry = before_twins(chain)
        self.twins = TwinInput(entry, form, ensemble.device) if entry else None
        self.names = self.twins.names if self.twins else []
        self.at_once = max(1, options.batch_size // len(self.names)) if self.twins else options.batch_size
        shown, limit = self.twins.form if self.twins else form, options.max_pixels
        self.look = partial(look, chain=self.before, size=shown.size, fit=shown.fit, max_pixels=limit, colour=colour)

    def described(self, settings: Settings) -> bytes:
        """What a worker of a cluster needs to make the same one, pickled."""
        models = [member.folder for member in self.ensemble.members]
        options, device = replace(self.options, sources=()), self.ensemble.device
        how = str(device), _precision(settings, device), self.chain, self.colour, settings.seed, settings.threads
        return pickle.dumps((options, models, *how))

    def answer_all(
        self, read: Iterable[tuple[RowView, SeenImage | InputError]]
    ) -> Iterator[tuple[RowView, dict[str, Any] | InputError]]:
        """The record of each image that was read, or why it has none."""
        stream = iter(read)
        while batch := list(islice(stream, self.at_once)):
            yield from zip((row for row, _ in batch), self.answer(batch), strict=True)

    def answer(self, batch: Sequence[tuple[RowView, SeenImage | InputError]]) -> list[dict[str, Any] | InputError]:
        """The same of a batch."""
        from cxrtool.imaging import plausibility, properties

        usual = self.usual
        checked = [(row, _unchanged(row, result)) for row, result in batch]
        looked = [(row, seen) for row, seen in checked if not isinstance(seen, InputError)]
        pictures = [seen.pixels for _, seen in looked]
        each = self.twins.make(pictures) if self.twins else [[picture] for picture in pictures]
        shown = [one for some in each for one in some]
        if not shown:
            return [seen for _, seen in checked if isinstance(seen, InputError)]
        probabilities = self.ensemble.predict(shown, mirrored=self.options.tta)
        records = []
        for k, ((row, seen), some) in enumerate(zip(looked, each, strict=True)):
            area = {} if seen.lung_area is None else {"mask_area": f"{seen.lung_area:.4f}"}
            warning = _warning(row, seen.warning)
            as_seen = {**row, **self._size_of(row, seen), "warning": warning, **area}
            records.append(
                {
                    "sha256": seen.sha256,
                    "warning": seen.warning,
                    "doubts": [plausibility.warn(pixels, usual) for pixels in some],
                    "properties": [properties.describe(pixels, as_seen, usual, self.training) for pixels in some],
                    "probabilities": probabilities[:, k * len(some) : (k + 1) * len(some)].tolist(),
                }
            )
        done = iter(records)
        return [seen if isinstance(seen, InputError) else next(done) for _, seen in checked]

    def _size_of(self, row: RowView, seen: SeenImage) -> dict[str, str]:
        """The size of an image as the manifest of the training images had it.

        Its own manifest has that already, where no step after it cuts the image: the file may be a reduced one.
        """
        known = {name: row.get(name, "") for name in ("height", "width")}
        cut = any(entry["step"] == "segment" for entry in self.before)
        return known if all(known.values()) and not cut else {"height": str(seen.height), "width": str(seen.width)}


def _unchanged(row: RowView, seen: SeenImage | InputError) -> SeenImage | InputError:
    """The image, or why it cannot be used: where its pixels are not those of the table, too."""
    return seen if isinstance(seen, InputError) else changed_pixels(row, seen.sha256) or seen


@lru_cache(4)
def _asker(way: bytes) -> tuple[_Asker, int, int]:
    from cxrtool.training.device import choose_device
    from cxrtool.training.inference import Ensemble

    options, models, device, precision, chain, colour, seed, threads = pickle.loads(way)
    ensemble = Ensemble(models, choose_device(device), precision)
    return _Asker(options, ensemble, chain, colour=colour), seed, threads


def _ask_batch(rows: Sequence[RowView], *, way: bytes) -> list[dict[str, Any] | InputError]:
    """Read a batch of images and answer it, in a worker of a cluster, which loads the models once."""
    from cxrtool.training.device import local_randomness

    asker, seed, threads = _asker(way)
    found = run_each(asker.look, [Path(row["path"]) for row in rows])
    with local_randomness(seed, threads):
        return asker.answer(list(zip(rows, found, strict=True)))


def _warning(row: RowView, seen: str) -> str:
    """The warning of an image; a manifest already has those of the reader."""
    return row.get("warning", "") or seen


def _answers(row: RowView, record: Mapping[str, Any], names: Sequence[str]) -> list[Answer]:
    """The answers for an image, or for each of its twins by the generators with these names."""
    import numpy as np

    known = {**row, "sha256": row.get("sha256") or record["sha256"], "warning": _warning(row, record["warning"])}
    rows = twin_rows(known, "", "", names) if names else [known]
    probabilities = np.array(record["probabilities"])
    found = []
    for k, (one, doubt, properties) in enumerate(zip(rows, record["doubts"], record["properties"], strict=True)):
        warning = "; ".join(text for text in (one["warning"], doubt) if text)
        found.append(Answer({**one, "warning": warning}, probabilities[:, k], properties))
    return found


MASKS = tuple(name for name in PATH_COLUMNS if name != "path")
"""Columns that predictions do not have, because their paths are relative to the manifest."""


def to_table(
    members: Sequence[Member], answers: Iterable[Answer], columns: Sequence[str], name: str, *, by_member: bool = False
) -> Predictions:
    """The answers as predictions: the mean of the members, or one row per member."""
    import numpy as np

    classes = list(members[0].description.classes)
    rows = Packed()
    values = array("d")
    for row, probabilities, _ in answers:
        pairs = list(zip(members, probabilities, strict=True)) if by_member else [(None, probabilities.mean(0))]
        for member, chosen in pairs:
            repeat, fold = runs.parse_fold(member.folder.name) if member and len(members) > 1 else ("", "")
            rows.append(
                {
                    **{name: cell for name, cell in row.items() if name not in MASKS},
                    **answered_as(row, repeat, fold),
                    "repeat": repeat,
                    "fold": fold,
                    "subset": "test",
                    "predicted": classes[int(chosen.argmax())],
                }
            )
            values.extend(chosen.tolist())
    found = columns_of(rows, [name for name in columns if name not in MASKS])
    return Predictions.of_columns(found, np.array(values, np.float64).reshape(-1, len(classes)), classes, name)
