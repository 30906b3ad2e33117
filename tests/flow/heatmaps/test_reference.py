import cv2
import numpy as np
import pytest

from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import ImageError, InputError, UsageError
from cxrtool.flow.heatmaps.reference import BOXES, Origin, Outline, References
from cxrtool.imaging.crop import cut
from cxrtool.imaging.resize import prepare_pixels

HEIGHT, WIDTH = 90, 140
PREPARE = [{"step": "prepare", "version": 1, "size": 64, "fit": "squash"}]
CLAHE = {"step": "clahe", "version": 1}
SIDES = ("top", "left", "height", "width")
CROP = {"step": "segment", "version": 1, "use": "crop+apply"}


def write(path, values=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((4, 4), 255, np.uint8) if values is None else values)
    return path


def row(name, **more):
    return {"image_id": name, "path": f"/data/images/{name}.png", **more}


def files(found):
    return {structure: outline.file for structure, outline in found.items()}


@pytest.fixture
def shape():
    """An asymmetric shape: an L that no flip or exchange of axes maps on itself."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:70, 30:44] = mask[58:70, 30:110] = 255
    return mask


def test_masks_of_a_folder_are_found_by_the_names_of_images(tmp_path):
    folder = tmp_path / "lesions"
    a, b = write(folder / "A.1.png"), write(folder / "b.PNG")
    found = References.read(folder, None)
    assert found.structures == ["lesions"]
    assert files(found.of(row("A.1"))) == {"lesions": str(a)}
    # Renamed in `prepare`, or derived from another image.
    assert files(found.of(row("x", original="covid/b.jpeg"))) == {"lesions": str(b)}
    assert files(found.of(row("A.1_r0f1", parent_id="A.1"))) == {"lesions": str(a)}
    assert found.of(row("c")) == {}
    assert set(found.files([row("A.1"), row("c")])) == {a}


def test_structures_of_a_folder_are_endings_or_subfolders(tmp_path):
    for name in ("p_lesions.png", "p_heart.png", "lungs/p.png"):
        write(tmp_path / name)
    found = References.read(tmp_path, "lesions, lungs").of(row("p"))
    assert files(found) == {"lesions": str(tmp_path / "p_lesions.png"), "lungs": str(tmp_path / "lungs/p.png")}
    assert References.read(tmp_path, None).of(row("q")) == {}
    with pytest.raises(InputError, match=r"expected masks that end in _tubes, such as ID_tubes\.png, found none"):
        References.read(tmp_path, "tubes")
    with pytest.raises(UsageError, match="each name once"):
        References.read(tmp_path, "lesions,lesions")


def test_of_two_images_of_one_name_the_folder_decides(tmp_path):
    one, other = write(tmp_path / "a/p.png"), write(tmp_path / "b/p.png")
    found = References.read(tmp_path, None)
    assert list(files(found.of({"image_id": "b_p", "path": "/x/b/p.dcm"})).values()) == [str(other)]
    assert list(files(found.of({"image_id": "p", "path": "prepared/p.png", "original": "a/p.jpg"})).values()) == [
        str(one)
    ]
    with pytest.raises(InputError, match="expected one entry for 'p', found a/p, b/p"):
        found.of(row("p"))
    write(tmp_path / "a/p.bmp")
    with pytest.raises(InputError, match="expected one mask an image"):
        References.read(tmp_path, None)


@pytest.mark.parametrize("place", ["set", "set/structures"])
def test_a_table_lists_masks_below_its_folder_or_the_one_above(tmp_path, place):
    path = write(tmp_path / "set/structures/opacities/p.png")
    rows = [
        {"file": "images/covid/p.jpeg", "opacities": "structures/opacities/p.png", "devices": "", "note": "x"},
        {"file": "images/covid/q.jpeg", "opacities": "", "devices": "", "note": ""},
    ]
    table = tmp_path / place / "structures.csv"
    write_table(table, list(rows[0]), rows)
    found = References.read(table, None)
    assert files(found.of(row("p"))) == {"opacities": str(path)}
    assert found.of(row("q")) == {"opacities": Outline("opacities")}
    assert found.files([row("p")]) == [path, table]
    assert found.of(row("r")) == {}
    with pytest.raises(UsageError, match="did you mean 'devices'"):
        References.read(table, "device")
    with pytest.raises(InputError, match="expected paths of masks in column note, found x"):
        References.read(table, "note")
    with pytest.raises(InputError, match="outside --root"):
        References.read(table, None, tmp_path / "elsewhere")
    write_table(table, list(rows[0]), [*rows, rows[0]])
    with pytest.raises(InputError, match=r"structures\.csv, line 4: 'images/covid/p\.jpeg' is listed twice"):
        References.read(table, None)


def test_a_table_of_several_structures_asks_which(tmp_path):
    write(tmp_path / "m.png")
    write_table(tmp_path / "t.csv", ["file", "a", "b"], [{"file": "p.png", "a": "m.png", "b": "m.png"}])
    with pytest.raises(UsageError, match="expected one column with paths of masks") as caught:
        References.read(tmp_path / "t.csv", None)
    assert caught.value.hint == "--structure a chooses one"
    assert References.read(tmp_path / "t.csv", "b,a").structures == ["b", "a"]
    write_table(tmp_path / "u.csv", ["colour"], [{"colour": "red"}])
    with pytest.raises(InputError, match="expected a column that names the image"):
        References.read(tmp_path / "u.csv", None)
    with pytest.raises(InputError, match="nowhere"):
        References.read(tmp_path / "nowhere", None)


def test_boxes_of_rsna_are_several_rows_an_image(tmp_path):
    table = tmp_path / "stage_2_train_labels.csv"
    table.write_text("patientId,x,y,width,height,Target\nu1,10.0,20,30,40,1\nu1,50,60,5,6,1\nu2,,,,,0\nu3,1,1,2,2,0\n")
    found = References.read(table, None)
    assert found.of(row("u1")) == {BOXES: Outline(BOXES, boxes=((10, 20, 30, 40), (50, 60, 5, 6)))}
    assert found.of(row("u2")) == found.of(row("u3")) == {BOXES: Outline(BOXES)}
    for wrong in ("u1,10,20,0,40,1", "u1,10,20,nan,40,1", "u1,10,,3,4,1", "u1,ten,2,3,4,1"):
        table.write_text(f"patientId,x,y,width,height,Target\n{wrong}\n")
        with pytest.raises(InputError, match=r"line 2: expected a box with x, y, width and height"):
            References.read(table, None)


def test_a_box_has_the_pixels_whose_centres_are_in_it():
    mask = Origin().read(Outline(BOXES, boxes=((2, 1, 3, 2), (0, 0, 0.6, 0.6))), (5, 8), None)
    expected = np.zeros((5, 8), np.uint8)
    expected[1:3, 2:5] = expected[0, 0] = 255
    assert np.array_equal(mask, expected)
    with pytest.raises(ImageError, match=r"its box 8, 0 is outside of the image of 8 x 5"):
        Origin().read(Outline(BOXES, boxes=((8, 0, 2, 2),)), (5, 8), None)
    over = Origin().read(Outline(BOXES, boxes=((6, 1, 3, 2),)), (5, 8), None)
    assert np.argwhere(over).tolist() == [[1, 6], [1, 7], [2, 6], [2, 7]]
    with pytest.raises(ImageError, match="less than half of its box 6, 1, 5, 2 is in the image of 8 x 5"):
        Origin().read(Outline(BOXES, boxes=((6, 1, 5, 2),)), (5, 8), None)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, "ones"])
def test_a_mask_is_read_whatever_its_bits_are(tmp_path, shape, kind):
    values = (shape > 0).astype(np.uint8) if kind == "ones" else shape.astype(kind) * (257 if kind == np.uint16 else 1)
    path = write(tmp_path / "m.png", values)
    assert np.array_equal(Origin().read(Outline("m", str(path)), shape.shape, None), shape)
    # Twice as large as the image, by another program: the same shape.
    large = write(tmp_path / "l.png", cv2.resize(values, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST))
    assert np.array_equal(Origin().read(Outline("m", str(large)), shape.shape, None), shape)


@pytest.mark.parametrize("fit", ["squash", "pad", "crop"])
@pytest.mark.parametrize("crop", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_reference_goes_where_its_image_went(tmp_path, shape, fit, crop, known):
    chain = [PREPARE[0] | {"fit": fit}, CLAHE, *([CROP] if crop else [])]
    # The image is its own outline, so that its pixels show where the reference must be.
    image, box = prepare_pixels(shape, 64, fit), (12, 9, 44, 37)
    facts = {"height": str(HEIGHT), "width": str(WIDTH)} if known else {}
    if crop:
        image = cut(image, box)
        facts = {
            f"crop_{side}": str(value) for side, value in zip(("top", "left", "height", "width"), box, strict=True)
        }
        # What `segment` writes is the size of its image.
        facts |= {"mask_area": "0.3", "height": "44", "width": "37"}
    origin = Origin.of(row("p", **facts), chain)
    path = write(tmp_path / "m.png", shape)
    found = origin.read(Outline("m", str(path)), image.shape, None)
    assert found.shape == image.shape
    inside = image > 127
    assert (found[inside] > 0).mean() > 0.97
    assert (found[~inside] > 0).mean() < 0.03
    boxes = Outline(BOXES, boxes=((30, 20, 14, 50), (30, 58, 80, 12)))
    if known and not crop:
        assert np.array_equal(origin.read(boxes, image.shape, None), found)
    else:
        with pytest.raises(ImageError, match="the size of the original image, in whose pixels its boxes are, is not"):
            origin.read(boxes, image.shape, None)


def test_a_mask_of_the_prepared_image_is_taken_as_it_is(tmp_path, shape):
    small = prepare_pixels(shape, 64, "pad")
    path = write(tmp_path / "m.png", (small > 127).astype(np.uint8) * 255)
    origin = Origin.of(row("p", height=str(HEIGHT), width=str(WIDTH)), [PREPARE[0] | {"fit": "pad"}])
    assert np.array_equal(origin.read(Outline("m", str(path)), small.shape, None) > 0, small > 127)


@pytest.mark.parametrize(
    ("size", "facts", "chain", "message"),
    [
        ((50, 140), {}, [], "it is 140 x 50, its image 140 x 90"),
        ((140, 90), {"height": "90", "width": "140"}, PREPARE, "it is 90 x 140, its image 140 x 90"),
        ((90, 140), {}, [{"step": "turn"}], "it cannot be transformed like its image by 'turn'"),
        ((120, 140), {}, [CROP, CROP], "it cannot be transformed like its image by 'segment'"),
        (
            (120, 140),
            {f"crop_{n}": "5" for n in SIDES},
            [CROP],
            "after the steps of its image it is 5 x 5, its",
        ),
        (
            (64, 64),
            {f"crop_{n}": "8" for n in SIDES},
            [CROP, *PREPARE],
            "which may be the original image or its crop",
        ),
    ],
)
def test_a_mask_that_does_not_belong_to_its_image_is_refused(tmp_path, size, facts, chain, message):
    path = write(tmp_path / "m.png", np.full(size, 255, np.uint8))
    listed = (64, 64) if chain in (PREPARE, [CROP, *PREPARE]) else (HEIGHT, WIDTH)
    with pytest.raises(ImageError, match=message):
        Origin.of(row("p", **facts), chain).read(Outline("m", str(path)), listed, None)


def test_a_missing_file_in_the_first_row_is_only_missing(tmp_path):
    path = write(tmp_path / "b.png")
    (tmp_path / "table.csv").write_text("image_id,lesion\na,none.png\nb,b.png\n")
    found = References.read(tmp_path / "table.csv", None)
    assert files(found.of(row("b"))) == {"lesion": str(path)}
    assert files(found.of(row("a"))) == {"lesion": str(tmp_path / "none.png")}


def test_boxes_with_decimal_commas_and_corners(tmp_path):
    table = tmp_path / "boxes.csv"
    table.write_text("image_id;x;y;width;height\na;1,5;2;3,25;4\n")
    found = References.read(table, None).of(row("a"))
    assert found["boxes"].boxes == ((1.5, 2.0, 3.25, 4.0),)
    table.write_text("image_id,xmin,ymin,xmax,ymax\na,1,2,3,4\n")
    with pytest.raises(UsageError) as error:
        References.read(table, None)
    assert "the corners xmax, xmin, ymax, ymin" in (error.value.hint or "")
