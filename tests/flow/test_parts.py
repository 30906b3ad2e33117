import pytest
import torch

from cxrtool.errors import InputError
from cxrtool.flow import parts
from cxrtool.imaging.fits import Form
from cxrtool.models import parts as models
from cxrtool.models.lungs import NETWORKS


@pytest.fixture
def part(tmp_path):
    torch.manual_seed(0)
    models.save_part(tmp_path / "mine", "lungs", "unet", NETWORKS["unet"].build(), Form(64), {})
    return models.read_part(tmp_path / "mine", "lungs")


def test_a_part_travels_with_its_chain(part, tmp_path):
    entry = {"step": "segment", "part": part.identity(), parts.AT: str(part.folder)}
    chain = [{"step": "prepare", "size": 64}, entry]
    parts.copy_parts(chain, tmp_path / "step")
    written = parts.without_paths(chain)
    assert written == [chain[0], {"step": "segment", "part": part.identity()}]
    found = parts.locate(written, tmp_path / "step")
    assert found[0] == chain[0]
    assert found[1][parts.AT] == str(tmp_path / "step" / "parts" / parts.name_of(part.identity()))
    parts.copy_parts(found, tmp_path / "model")
    assert parts.locate(written, tmp_path / "model")[1][parts.AT].startswith(str(tmp_path / "model"))


def test_a_part_that_is_not_there_is_named(part, tmp_path):
    with pytest.raises(InputError, match=rf"lungs network \(unet, {part.sha256[:12]}\) that is neither in"):
        parts.locate([{"step": "segment", "part": part.identity()}], tmp_path)


def test_what_comes_with_cxrtool_is_found_and_not_copied(part, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    (tmp_path / "mine").rename(shipped / "lungs-default")
    monkeypatch.setattr(models, "SHIPPED", shipped)
    found = parts.locate([{"step": "segment", "part": part.identity()}], tmp_path / "model")
    assert found[0][parts.AT] == str(shipped / "lungs-default")
    parts.copy_parts(found, tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert models.default_part("lungs").shipped


def test_of_a_fold_of_generators_the_part_alone_travels(tmp_path, study, write_generators):
    run = write_generators(tmp_path / "run", study.splits, [])
    part = models.read_part(run / "r0f0", "generators")
    parts.copy_parts([{"step": "transform", "part": part.identity(), parts.AT: str(part.folder)}], tmp_path / "model")
    names = [path.name for path in (tmp_path / "model" / "parts").glob("*/*")]
    assert sorted(names) == ["fitted_on.csv", "part.json", "part.safetensors"]
    assert parts.locate([{"step": "transform", "part": part.identity()}], tmp_path / "model")
