import pytest

from cxrtool.errors import UsageError
from cxrtool.flow.settings import Settings
from cxrtool.flow.share import Share


@pytest.mark.parametrize("text", ["0/3", "4/3", "3", "1/0", "a/b", "1/3/5", "-1/3", ""])
def test_what_is_no_part(text):
    with pytest.raises(UsageError, match="expected I/N with I from 1 to N"):
        Share.of(Settings(part=text))


def test_parts_and_force_exclude_one_another():
    with pytest.raises(UsageError, match="--part and --force"):
        Share.of(Settings(part="1/2", force=True))
    assert Share.of(Settings(part="1/2")) == Share(1, 2)
    assert Share.of(Settings(force=True)) is None


@pytest.mark.parametrize(("items", "count"), [(10, 3), (2, 5), (7, 1)])
def test_each_item_is_in_one_share_and_all_are_of_one_size(items, count):
    names = {f"i{k}": k for k in range(items)}
    shares = [Share(number, count).select(names) for number in range(1, count + 1)]
    assert sorted(name for share in shares for name in share) == sorted(names)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
