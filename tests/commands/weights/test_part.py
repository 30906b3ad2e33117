import json
from dataclasses import replace

import numpy as np
import pytest

from cxrtool.commands.weights.import_ import ImportOptions, run
from cxrtool.data.splitting.grouping import hashed
from cxrtool.data.tables.manifest import read_table
from cxrtool.errors import InputError, UsageError
from cxrtool.models.parts import load_network, read_part
from cxrtool.models.rib_autoencoder import kernels_of


@pytest.fixture
def taken_in(settings, tmp_path):
    def call(file, out="part", kind="ribs", **changes):
        run(ImportOptions(file, kind, **changes), replace(settings, out=tmp_path / out))
        return tmp_path / out

    return call


def test_a_tensorflow_file_and_plain_arrays_become_the_same_part(
    write_checkpoint, rib_kernels, taken_in, tmp_path, listener
):
    noise = {f"{name}/Adam{end}": values * 2 for name, values in rib_kernels.items() for end in ("", "_1")}
    stem = write_checkpoint(tmp_path / "model", {**rib_kernels, **noise, "beta1_power": np.float32(0.9)})
    np.savez(tmp_path / "arrays.npz", **kernels_of(rib_kernels, ""))
    first, second = taken_in(stem.with_name("model.index")), taken_in(tmp_path / "arrays.npz", "other")
    part = read_part(first, "ribs")
    assert part.sha256 == read_part(second, "ribs").sha256
    assert (part.network, part.form.size, part.form.invert) == ("autoencoder", 1024, True)
    for name, values in load_network(first, "ribs").state_dict().items():
        wanted = rib_kernels[f"encoder/layer/{name.split('.')[1]}/W"]
        assert (values.numpy().transpose(2, 3, 1, 0) == wanted).all()
    assert part.description["imported"]["file"] == "model.data-00000-of-00001"
    assert any("its training images are not known" in text for text in listener.warned)
    assert f"--ribs {first}" in " ".join(listener.said)


def test_the_same_again_is_nothing_to_do(write_checkpoint, rib_kernels, taken_in, tmp_path, listener):
    write_checkpoint(tmp_path / "model", rib_kernels)
    taken_in(tmp_path / "model")
    taken_in(tmp_path / "model")
    assert listener.said[-1].endswith("up to date, nothing to do")
    content = json.loads((tmp_path / "part" / "run.json").read_text())
    assert content["command"] == "weights"


def test_what_it_was_trained_on_is_kept_where_it_is_told(write_checkpoint, rib_kernels, taken_in, tmp_path, tiny):
    write_checkpoint(tmp_path / "model", rib_kernels)
    part = taken_in(tmp_path / "model", fitted_on=tiny.origin)
    rows = read_table(part / "fitted_on.csv").rows
    assert [row["patient_id"] for row in rows] == [hashed(patient) for patient in tiny.column("patient_id")]
    assert all(len(row["sha256"]) == 64 for row in rows)


def test_what_is_none_is_named(taken_in, tmp_path, rib_kernels, write_checkpoint):
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.h5").write_bytes(b"x")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no more")
    np.savez(tmp_path / "code.npz", **{"encoder.0.weight": np.array([print], object)})
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    for name, text in (
        ("nowhere", "no such file"),
        ("empty", "a folder without one"),
        ("weights.h5", "another file"),
        ("broken.npz", "cannot be read as an .npz"),
        ("code.npz", "cannot be read as an .npz"),
        ("other.npz", "no 'encoder.0.weight' but: a"),
    ):
        with pytest.raises(InputError) as caught:
            taken_in(tmp_path / name)
        assert text in str(caught.value)
        assert not (tmp_path / "part").exists()
    with pytest.raises(UsageError, match="--kind: expected one of ribs, found 'lungs'"):
        taken_in(tmp_path / "nowhere", kind="lungs")
    wild = {name: np.where(values > 0, np.inf, values) for name, values in rib_kernels.items()}
    with pytest.raises(InputError, match="'encoder/layer/0/W': some of the weights are not finite"):
        taken_in(write_checkpoint(tmp_path / "wild", wild))
