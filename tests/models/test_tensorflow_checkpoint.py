import numpy as np
import pytest

from cxrtool.errors import InputError
from cxrtool.models.tensorflow_checkpoint import DATA, INDEX, checkpoint_stem, crc32c, read_tensors


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    names = ("encoder/layer/0/W", "encoder/layer/0/W/Adam", "encoder/layer/1/W", "step", "empty")
    shapes = ((5, 5, 1, 16), (5, 5, 1, 16), (3, 200), (), (0, 4))
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in zip(names, shapes, strict=True)}


def test_the_crc_is_castagnoli_s():
    # RFC 3720, B.4.
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"") == 0


def test_what_was_written_is_read(write_checkpoint, arrays, tmp_path):
    found = read_tensors(write_checkpoint(tmp_path / "model", arrays))
    assert found.keys() == arrays.keys()
    for name, values in arrays.items():
        assert found[name].shape == values.shape
        assert (found[name] == values).all()


def test_a_checkpoint_is_found_by_any_of_its_names(write_checkpoint, arrays, tmp_path):
    stem = write_checkpoint(tmp_path / "model.ckpt-7", arrays)
    for name in (stem, stem.with_name(stem.name + INDEX), stem.with_name(stem.name + DATA), tmp_path):
        assert checkpoint_stem(name) == stem
    assert checkpoint_stem(tmp_path / "other") is None
    write_checkpoint(tmp_path / "second", arrays)
    assert checkpoint_stem(tmp_path) is None


def test_a_flipped_bit_is_noticed(write_checkpoint, arrays, tmp_path):
    stem = write_checkpoint(tmp_path / "model", arrays)
    data = stem.with_name(stem.name + DATA)
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    with pytest.raises(InputError, match="damaged: the checksum of 'step'"):
        read_tensors(stem)
    data.write_bytes(content[:-4])
    with pytest.raises(InputError, match="truncated"):
        read_tensors(stem)
    data.unlink()
    with pytest.raises(InputError, match="cannot be read") as caught:
        read_tensors(stem)
    assert DATA in str(caught.value)


@pytest.mark.parametrize("how", [{"shards": 2}, {"big": True}])
def test_what_cannot_be_read_right_is_refused(write_checkpoint, arrays, tmp_path, how):
    with pytest.raises(InputError, match="one little-endian file"):
        read_tensors(write_checkpoint(tmp_path / "model", arrays, **how))


def test_no_damage_to_the_index_is_more_than_one_clear_line(write_checkpoint, arrays, tmp_path):
    stem = write_checkpoint(tmp_path / "model", arrays)
    index = stem.with_name(stem.name + INDEX)
    whole = index.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        content = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        index.write_bytes(content)
        try:
            read_tensors(stem)
        except InputError as error:
            refused += str(stem) in error.message
    assert refused > 200


def test_the_published_file_gives_the_published_arrays(root):
    shared = root.parent / "shared"
    stem = checkpoint_stem(shared / "reference" / "rib_suppression" / "checkpoint")
    if stem is None:
        pytest.skip("no published checkpoint beside this checkout")
    found = read_tensors(stem)
    with np.load(shared / "weights" / "rib_suppression_published.npz") as wanted:
        for layer in range(3):
            ordered = found[f"encoder/layer/{layer}/W"].transpose(3, 2, 0, 1)
            assert (ordered == wanted[f"encoder.{layer}.weight"]).all()
