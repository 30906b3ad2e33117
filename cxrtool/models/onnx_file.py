"""An ONNX file as `weights export` writes it: the entries of `model.json` in its metadata, and checks before it is run.

The file may come from anywhere. So its metadata are read without onnxruntime, and `load` refuses what our networks do
not have: weights in other files, operators of other domains, subgraphs, values of an unknown or enormous size.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cxrtool.data.files import no_such
from cxrtool.errors import CxrtoolError, InputError

if TYPE_CHECKING:
    from onnx import ModelProto, TensorProto

SUFFIX = ".onnx"

IMAGES, PROBABILITIES, CALIBRATED = "images", "probabilities", "calibrated"
"""The names of the input and the outputs of the graph."""

MADE_BY, MADE_FROM, SEEN = "cxrtool", "made_from", "fitted_on"
"""Entries of the metadata beside those of `model.json`: the version, the source of the weights, what was seen."""

DIGEST = "digest"
"""The entry with the digest of all else in the file: one wrong bit in a weight may change every answer a little."""

SEEN_COLUMNS = ("patient_id", "sha256", "subset")
"""What is kept of `fitted_on.csv`: enough to recognise an image or a patient, without the names of images."""

LARGEST = 2**31 - 1
"""Bytes of a file: the format has no larger ones."""

LARGEST_VALUE = 2**30
"""Numbers in one value of the graph, for one image: 4 GiB."""

OWN_DOMAINS = ("", "ai.onnx")


def is_exported(path: Path) -> bool:
    """Whether a path is an ONNX file, by its name."""
    return Path(path).suffix.lower() == SUFFIX and Path(path).is_file()


def library(name: str) -> ModuleType:
    """The module `onnx`, `onnxruntime` or `onnxscript`.

    Raises:
        CxrtoolError: It is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except ImportError as error:
        text = f"an ONNX model needs the package {name}, which is not installed"
        raise CxrtoolError(text, "pip install 'cxrtool[onnx]'") from error


def to_metadata(
    content: Mapping[str, Any], seen: Iterable[Mapping[str, str]] | None, made_from: Mapping[str, Any]
) -> dict[str, str]:
    """The metadata of a file: every entry of `model.json` as JSON, and what else `predict` needs.

    Args:
        content: As in `model.json`.
        seen: The rows of `fitted_on.csv`; None where there is none.
        made_from: Of the weights: their source, licence and digest.
    """
    import cxrtool

    found = {name: json.dumps(value, ensure_ascii=False) for name, value in content.items()}
    found |= {MADE_BY: cxrtool.__version__, MADE_FROM: json.dumps(made_from, ensure_ascii=False)}
    if seen is not None:
        text = io.StringIO()
        writer = csv.DictWriter(text, SEEN_COLUMNS, extrasaction="ignore", restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(seen)
        found[SEEN] = text.getvalue()
    return found


def read_metadata(path: Path) -> Mapping[str, str]:
    """The metadata of a file that `weights export` wrote; read once for each size and time of the file.

    Raises:
        InputError: It is no such file, or one that must not be run.
    """
    try:
        status = Path(path).stat()
    except OSError:
        raise InputError(no_such(Path(path))) from None
    return _metadata(Path(path), status.st_size, status.st_mtime_ns)


@lru_cache(16)
def _metadata(path: Path, size: int, time: int) -> Mapping[str, str]:
    return metadata_of(load(path))


def metadata_of(model: ModelProto) -> dict[str, str]:
    """The metadata of a graph."""
    return {entry.key: entry.value for entry in model.metadata_props}


def read_content(path: Path) -> dict[str, Any]:
    """The entries of `model.json` that a file holds.

    Raises:
        InputError: As `read_metadata`, or an entry is not readable.
    """
    texts = read_metadata(path).items()
    return {name: _parse(path, name, text) for name, text in texts if name not in (MADE_BY, MADE_FROM, SEEN)}


def read_origin(path: Path) -> dict[str, Any]:
    """Where the weights of a file come from.

    Raises:
        InputError: As `read_content`.
    """
    found = _parse(path, MADE_FROM, read_metadata(path).get(MADE_FROM, "{}"))
    return found if isinstance(found, dict) else {}


def _parse(path: Path, name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: '{name}' in its metadata: not readable JSON: {error}", "export it again") from error


def read_seen(path: Path) -> list[dict[str, str]] | None:
    """The images that the model was fitted on, `SEEN_COLUMNS` of each; None where that is not known."""
    text = read_metadata(path).get(SEEN)
    if text is None:
        return None
    return [{name: row.get(name) or "" for name in SEEN_COLUMNS} for row in csv.DictReader(io.StringIO(text))]


def load(path: Path) -> ModelProto:
    """Read a file without anything that it refers to, and check it.

    Raises:
        InputError: It is no ONNX file, not one of `weights export`, or has what none of these has.
    """
    onnx = library("onnx")
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(f"{path}: expected an ONNX model below 2 GiB, found {size:,} bytes")
        model: ModelProto = onnx.load_model_from_string(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except InputError:
        raise
    except Exception as error:
        # protobuf has its own errors, which differ between its implementations.
        raise InputError(f"{path}: expected an ONNX model, found a file that is cut off or of another kind") from error
    known = metadata_of(model)
    if missing := next(
        (name for name in (MADE_BY, DIGEST, "schema", "classes", "chain", "input") if name not in known), None
    ):
        raise InputError(
            f"{path}: expected an ONNX model by `cxrtool weights export`, found no entry '{missing}' in its metadata",
            "its classes and preprocessing are not known: import the weights that it was made of (`cxrtool weights "
            "import FILE.pth --model NAME --classes A,B -o model`), then export that model",
        )
    if known[DIGEST] != _take_digest(model):
        raise InputError(
            f"{path}: expected the file as `cxrtool weights export` wrote it, found it changed: its content is another",
            "export it again, or copy it again",
        )
    check_graph(model, str(path))
    return model


def seal(model: ModelProto) -> None:
    """Write the digest of a graph and its metadata into the metadata."""
    digest = _take_digest(model)
    entry = model.metadata_props.add()
    entry.key, entry.value = DIGEST, digest


def _take_digest(model: ModelProto) -> str:
    """The digest of all but the entry of the digest, which is removed."""
    for index in reversed(range(len(model.metadata_props))):
        if model.metadata_props[index].key == DIGEST:
            del model.metadata_props[index]
    return hashlib.sha256(model.SerializeToString(deterministic=True)).hexdigest()


def check_graph(model: ModelProto, name: str) -> None:
    """Check that a graph can be run: it reads no other file, and its values have known sizes that are not too large.

    Raises:
        InputError: It cannot; the message says what was found.
    """
    onnx = library("onnx")

    def refuse(found: str) -> InputError:
        return InputError(f"{name}: expected a graph as `cxrtool weights export` writes it, found {found}")

    foreign = [entry.domain for entry in (*model.opset_import, *model.graph.node) if entry.domain not in OWN_DOMAINS]
    if foreign or model.functions:
        raise refuse(f"operators of '{foreign[0]}'" if foreign else "operators of its own")
    if model.training_info:
        raise refuse("a training of its own")
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise refuse("a graph inside a graph")
    for tensor in _tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            place = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
            raise refuse(f"weights in another file, '{place[:80]}'")
        if min(tensor.dims, default=0) < 0 or math.prod(tensor.dims) > LARGEST_VALUE:
            raise refuse(f"'{tensor.name[:80]}' with the shape {' x '.join(map(str, tensor.dims))}")
    try:
        onnx.checker.check_model(model)
        shapes = _shapes(onnx, model)
    except Exception as error:
        # The checker and the inference each have errors of their own.
        raise refuse(f"a fault: {' '.join(str(error).split())[:160]}") from error
    for node in model.graph.node:
        for output in filter(None, node.output):
            shape = shapes.get(output)
            if shape is None or min(shape, default=1) < 0:
                raise refuse(f"'{output[:80]}' ({node.op_type}), whose size is not known before it is run")
            if math.prod(shape) > LARGEST_VALUE:
                raise refuse(f"'{output[:80]}' ({node.op_type}) with the shape {' x '.join(map(str, shape))}")


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in model.graph.node:
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
            sparse_values = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
            for sparse in (*sparse_values, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)


SHAPE_BYTES = 4096
"""Constants up to this size may be shapes, whose values the inference of shapes reads."""


def _shapes(onnx: ModuleType, model: ModelProto) -> dict[str, Sequence[int]]:
    """The shape of every value for one image, by the operators alone; -1 where a side is not known.

    Shapes that the file itself states are not used, and the weights, which bear on no shape, are not copied.
    """
    bare = onnx.ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    graph = bare.graph
    graph.name = model.graph.name or "graph"
    graph.node.extend(model.graph.node)
    for value in model.graph.input:
        graph.input.add().CopyFrom(value)
        dims = graph.input[-1].type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_value = 1
    graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= SHAPE_BYTES:
            graph.initializer.add().CopyFrom(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    found = onnx.shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True).graph
    return {
        value.name: [dim.dim_value if dim.HasField("dim_value") else -1 for dim in value.type.tensor_type.shape.dim]
        for value in (*found.value_info, *found.output)
        if value.type.tensor_type.HasField("shape")
    }
