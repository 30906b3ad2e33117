import json
import struct

import pytest

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from cxrtool.errors import CxrtoolError, InputError  # noqa: E402
from cxrtool.models import onnx_file  # noqa: E402
from cxrtool.models.description import ModelDescription  # noqa: E402
from cxrtool.models.onnx_file import load, read_content, read_metadata, read_seen, seal, to_metadata  # noqa: E402

SIDE, CLASSES = 16, ["a", "b"]
CONTENT = {
    "schema": 1,
    "classes": CLASSES,
    "architecture": {"name": "thumbnail", "classes": 2, "size": SIDE},
    "chain": [],
    "input": {"size": SIDE, "fit": "pad"},
    "normalization": {"mean": [0.5], "std": [0.25]},
}
SEEN = [{"image_id": "secret name", "patient_id": "12ab", "sha256": "ff", "subset": "train"}]


def graph(*more, initializers=(), domain=""):
    """A softmax of a product of the pixels, and other nodes beside it."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, (SIDE * SIDE, 2), [k % 7 / 99 for k in range(SIDE * SIDE * 2)])
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"], domain=domain),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ("n", 1, SIDE, SIDE))
    found = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ("n", 2))
    made = helper.make_graph([*more, *nodes], "g", [images], [found], [weights, *initializers])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)])
    model.ir_version = 9
    return model


def write(path, model, metadata=None):
    helper.set_model_props(model, to_metadata(CONTENT, SEEN, {"licence": None}) if metadata is None else metadata)
    seal(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_description_and_the_digests_come_back_without_names_of_images(tmp_path):
    path = write(tmp_path / "m.onnx", graph())
    assert read_content(path) == CONTENT
    assert ModelDescription.read(path) == ModelDescription.from_json(CONTENT, path)
    assert read_seen(path) == [{"patient_id": "12ab", "sha256": "ff", "subset": "train"}]
    assert b"secret name" not in path.read_bytes()
    assert json.loads(read_metadata(path)["classes"]) == CLASSES
    assert read_seen(write(tmp_path / "n.onnx", graph(), to_metadata(CONTENT, None, {}))) is None


def external():
    model = graph()
    tensor = model.graph.initializer[0]
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../../etc/passwd"
    return model


def hidden():
    """The same in an attribute, which a loader of initialisers does not look into."""
    value = TensorProto(name="v", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="/etc/hostname")
    return graph(helper.make_node("Constant", [], ["c"], value=value))


def of_size(*dims):
    shape = helper.make_tensor("s", TensorProto.INT64, (len(dims),), dims)
    return graph(helper.make_node("ConstantOfShape", ["s"], ["huge"]), initializers=[shape])


def by_image():
    """The size of a value is read from the pixels; the file says that it is small."""
    nodes = [
        helper.make_node("ReduceSum", ["images"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["count"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["count", "axis"], ["shape"]),
        helper.make_node("ConstantOfShape", ["shape"], ["huge"]),
    ]
    model = graph(*nodes, initializers=[helper.make_tensor("axis", TensorProto.INT64, (1,), [0])])
    model.graph.value_info.append(helper.make_tensor_value_info("huge", TensorProto.FLOAT, (1,)))
    return model


def declared():
    return graph(
        initializers=[TensorProto(name="big", data_type=TensorProto.FLOAT, dims=[2**20, 2**20], raw_data=b"1")]
    )


def branching():
    inner = helper.make_graph([], "then", [], [])
    return graph(helper.make_node("If", ["c"], ["x"], then_branch=inner, else_branch=inner))


def own_operators():
    model = graph()
    inside = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("", "Mine", ["x"], ["y"], inside, [helper.make_opsetid("", 18)]))
    return model


def cyclic():
    model = graph()
    model.graph.node[0].input[0] = "logits"
    return model


@pytest.mark.parametrize(
    ("make", "found"),
    [
        (external, "weights in another file, '../../etc/passwd'"),
        (hidden, "weights in another file, '/etc/hostname'"),
        (lambda: of_size(10**6, 10**6), "'huge' (ConstantOfShape) with the shape 1000000 x 1000000"),
        (by_image, "'huge' (ConstantOfShape), whose size is not known before it is run"),
        (declared, "'big' with the shape 1048576 x 1048576"),
        (branching, "a graph inside a graph"),
        (own_operators, "operators of its own"),
        (lambda: graph(domain="com.evil"), "operators of 'com.evil'"),
        (cyclic, "a fault: "),
    ],
)
def test_a_hostile_graph_is_refused_in_a_line(tmp_path, make, found):
    path = write(tmp_path / "m.onnx", make())
    with pytest.raises(InputError) as caught:
        load(path)
    assert found in caught.value.message
    assert caught.value.message.startswith(f"{path}: expected a graph as `cxrtool weights export` writes it, found ")
    assert "\n" not in caught.value.message


def test_what_is_no_model_of_ours_is_refused(tmp_path):
    foreign = write(tmp_path / "f.onnx", graph(), {"classes": "a,b"})
    with pytest.raises(InputError, match="no entry 'cxrtool' in its metadata") as caught:
        load(foreign)
    assert "weights import" in caught.value.hint
    (tmp_path / "cut.onnx").write_bytes(write(tmp_path / "m.onnx", graph()).read_bytes()[:-40])
    (tmp_path / "text.onnx").write_text("no model at all")
    for name in ("cut", "text"):
        with pytest.raises(InputError, match=r"cut off or of another kind|no entry"):
            load(tmp_path / f"{name}.onnx")
    with pytest.raises(InputError, match="no such file"):
        read_metadata(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("classes", '["a", "a"]', "found 'a' 2 times"),
        ("classes", "[" * 100000, "'classes' in its metadata: not readable JSON"),
        ("input", '{"size": 16, "fit": "stretch"}', "'input' a size in pixels and a fit"),
        ("chain", '[{"step": "segment", "part": {"kind": "../../x", "network": "u", "sha256": "a"}}]', "'chain' parts"),
        ("chain", '[{"step": "segment", "part": 3}]', "'chain' parts"),
        ("surprise", "1", "found 'surprise'"),
    ],
)
def test_wrong_entries_are_refused(tmp_path, name, text, found):
    path = write(tmp_path / "m.onnx", graph(), {**to_metadata(CONTENT, SEEN, {}), name: text})
    with pytest.raises(InputError) as caught:
        ModelDescription.read(path)
    assert found in caught.value.message


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", graph())
    monkeypatch.setattr(onnx_file, "LARGEST", 100)
    with pytest.raises(InputError, match="below 2 GiB"):
        load(path)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = write(tmp_path / "m.onnx", graph())
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(CxrtoolError, match="an ONNX model needs the package onnx") as caught:
        read_metadata(path)
    assert caught.value.hint == "pip install 'cxrtool[onnx]'"


@pytest.mark.parametrize("place", ["weight", "class"])
def test_one_wrong_bit_is_found(tmp_path, place):
    path = write(tmp_path / "m.onnx", graph())
    content = bytearray(path.read_bytes())
    where = content.find(struct.pack("<f", 3 / 99)) if place == "weight" else content.find(CLASSES[0].encode())
    assert where > 0
    content[where + 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="found it changed"):
        load(path)
