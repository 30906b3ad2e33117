import pytest

from cxrtool.data.datasets import ADAPTERS, layout
from cxrtool.errors import InputError

PUBLISHED = sorted(name for name, adapter in ADAPTERS.items() if adapter.mark)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_set_is_known_by_its_names_alone(published, name):
    root = published(name)
    assert layout.fitting_adapters(root) == [name]
    hint = layout.misfit(root, "none", "something").hint
    assert hint == f"it looks like --dataset {name}"


@pytest.mark.parametrize("asked", PUBLISHED)
def test_no_adapter_takes_the_set_of_another(published, listed, asked):
    other = "rsna" if asked != "rsna" else "covidx"
    with pytest.raises(InputError, match=f"for --dataset {asked}, found") as caught:
        listed(asked, published(other))
    assert caught.value.hint == f"it looks like --dataset {other}"


def test_a_folder_of_anything_else_gets_the_general_hint(tmp_path):
    assert "found nothing" in layout.misfit(tmp_path, "rsna", "x").message
    for index in range(9):
        (tmp_path / f"{index}.png").write_bytes(b"")
    error = layout.misfit(tmp_path, "rsna", "x")
    assert error.message.endswith("expected x for --dataset rsna, found 0.png, 1.png, 2.png, 3.png, 4.png, 5.png, …")
    assert "--dataset folder" in error.hint
