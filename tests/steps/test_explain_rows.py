from cxrtool.steps.explain_rows import COLUMNS, SECOND, second_of, tell_of_map

RECORD = {"target": "P", "target_probability": 0.75, "energy_inside": None, "peak": (3, 4), "peak_inside": True}


def test_a_row_tells_of_its_map_in_text():
    told = tell_of_map({**RECORD, "twin": "N", "output": "P@N"}, "maps/a.npy")
    assert told["target_probability"] == "0.75"
    assert (told["peak_x"], told["peak_y"], told["peak_inside"]) == ("3", "4", "1")
    assert told["energy_inside"] == ""
    assert (told["twin"], told["output"], told["map"]) == ("N", "P@N", "maps/a.npy")
    empty = tell_of_map({**RECORD, "peak": None, "peak_inside": None, "energy_inside": 0.5}, "b")
    assert (empty["peak_x"], empty["peak_inside"], empty["energy_inside"]) == ("", "", "0.5")
    assert "twin" not in empty


def test_second_maps_are_told_under_the_names_of_first_ones():
    first = tell_of_map(RECORD, "maps/a.npy")
    second = {SECOND[key]: f"second {cell}" for key, cell in first.items()}
    assert set(second) <= set(COLUMNS)
    rows = second_of([{"image_id": "a", **first, **second}, {"image_id": "b", **first}])
    assert [row["image_id"] for row in rows] == ["a"]
    assert rows[0]["target"] == "second P"
    assert rows[0]["map"] == "second maps/a.npy"
