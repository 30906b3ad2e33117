import cv2
import pytest

from cxrtool.evaluation.comparison.runs import Entry, compare_runs
from cxrtool.evaluation.plots.comparison import draw_comparison
from cxrtool.evaluation.scores import scores_of


@pytest.fixture
def found(make_predictions):
    def make(count, name="model {}", slowest=10.0, **options):
        entries = [
            Entry(name.format(k), scores_of(make_predictions(60, seed=k, skill=1 + k / 4)), facts={"seconds": 1.0})
            for k in range(count)
        ]
        entries[-1] = Entry(entries[-1].name, entries[-1].scores, facts={"seconds": slowest})
        return compare_runs(entries, resamples=30, **options)

    return make


@pytest.mark.parametrize("count", [2, 12])
def test_every_picture_is_drawn_and_grows_with_the_runs(found, tmp_path, count):
    files = draw_comparison(found(count), tmp_path)
    assert [path.name for path in files] == ["forest.png", "differences.png", "seconds.png"]
    for path in files:
        height, width = cv2.imread(str(path)).shape[:2]
        assert width == 1080
        assert (200 < height < 400) if count == 2 else (700 < height < 1000)


def test_no_text_is_cut_off(found, tmp_path):
    """The outermost pixels are white, whatever the length of a name and of a number."""
    runs = found(12, "a run of a rather long name, number {}, and then some", 123_456.0, metric="auc", positive="covid")
    for path in draw_comparison(runs, tmp_path):
        picture = cv2.imread(str(path))
        for edge in (picture[:2], picture[-2:], picture[:, :2], picture[:, -2:]):
            assert (edge == 255).all(), path.name


def test_one_run_has_no_differences_and_a_csv_no_seconds(make_predictions, tmp_path):
    alone = compare_runs([Entry("csv", scores_of(make_predictions(60)))], resamples=30)
    assert [path.name for path in draw_comparison(alone, tmp_path)] == ["forest.png"]


def test_the_same_data_gives_the_same_bytes_and_names_are_text(found, tmp_path):
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        files = draw_comparison(found(3, r"$\alpha_{}$ 100 %", 1000.0), tmp_path / name)
        contents.append([path.read_bytes() for path in files])
    assert contents[0] == contents[1]
