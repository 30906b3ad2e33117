from PIL import Image

from cxrtool.reporting.flow_chart import Flow, Stage, draw_flow, tabulate

FLOW = Flow(
    [Stage("files", 10), Stage("read", 8, 6, [(1, "no image"), (1, "the same pixels as another one")])],
    [("training", "5 images\n4 patients"), ("test", "3 images\n2 patients")],
    ["a remark"],
)


def test_the_table_says_what_the_drawing_shows():
    sheet = tabulate(FLOW)
    assert sheet.rows == [
        ["files", "10", "", "0", ""],
        ["read", "8", "6", "2", "1: no image; 1: the same pixels as another one"],
    ]
    assert sheet.notes == ["training: 5 images, 4 patients.", "test: 3 images, 2 patients.", "a remark"]
    assert FLOW.excluded() == 2


def test_the_drawing_grows_with_what_is_in_it(tmp_path):
    sizes = []
    for number, flow in enumerate([Flow(FLOW.stages[:1]), Flow(FLOW.stages), FLOW]):
        path = tmp_path / f"{number}.png"
        draw_flow(flow, path)
        with Image.open(path) as picture:
            sizes.append(picture.size)
    assert sizes[0][0] < sizes[1][0], "what is left out stands to the right"
    assert sizes[0][1] < sizes[1][1] < sizes[2][1]


def test_the_same_flow_gives_the_same_bytes(tmp_path):
    for name in ("a.png", "b.png"):
        draw_flow(FLOW, tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
