import cv2
import pytest

from cxrtool.explaining.score_figure import draw

TITLES = {"energy": "energy", "iou": "IoU", "deletion": "deletion", "insertion": "insertion"}


def measure(value, **more):
    return {"value": value, "low": value - 0.1, "high": value + 0.1, **more}


def content(*, methods, tested):
    means = {"energy": measure(0.4, chance=0.3), "iou": measure(0.2, chance=0.25)}
    areas = {"deletion": measure(0.4, random=0.5), "insertion": measure(0.7, random=0.6)}
    structures = {name: {"methods": dict.fromkeys(methods, means)} for name in ("opacities", "tubes of any kind")}
    return {"structures": structures} | ({"faithfulness": {"methods": dict.fromkeys(methods, areas)}} if tested else {})


@pytest.mark.parametrize("tested", [False, True])
def test_there_is_a_panel_for_each_score_and_a_line_for_each_method(tmp_path, tested):
    draw(content(methods=["grad-cam"], tested=tested), TITLES, tmp_path / "one.png")
    draw(content(methods=["grad-cam", "occlusion"], tested=tested), TITLES, tmp_path / "two.png")
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert two.shape[0] > one.shape[0]
    assert two.shape[1] == one.shape[1]
    # The ticks of chance: one for each line of each panel.
    red = cv2.inRange(two, (0, 85, 205), (10, 105, 225))
    ticks = [area for *_, width, height, area in cv2.connectedComponentsWithStats(red)[2][1:] if height > 2.5 * width]
    assert len(ticks) == (8 + 4 * tested) + 1
    draw(content(methods=["grad-cam", "occlusion"], tested=tested), TITLES, tmp_path / "again.png")
    assert (tmp_path / "again.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_without_scores_there_is_no_figure(tmp_path):
    draw({"structures": {"devices": {"methods": {}}}}, TITLES, tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()
