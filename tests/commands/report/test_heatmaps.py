import json

import pytest

from cxrtool.commands.report.heatmaps import Explained
from cxrtool.data.tables.manifest import write_table
from cxrtool.errors import InputError


def test_heatmaps_of_another_model_are_refused(tmp_path):
    for name in ("own", "another"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(json.dumps({"command": "train", "digest": name}))
    maps = tmp_path / "maps"
    maps.mkdir()
    (maps / "scores.json").write_text("{}")
    write_table(maps / "manifest.csv", ["image_id"], [{"image_id": "a"}])
    told = {"command": "explain", "explained": {"model": {"name": "runs/own", "runs": ["own"]}}}
    (maps / "run.json").write_text(json.dumps(told))
    # A table has no folder of a model.
    for folds in ([tmp_path / "own"], [tmp_path / "another", tmp_path / "own"], []):
        found = Explained.read(maps, {"a"}, folds)
        assert f"Heatmaps of the model runs/own, from {maps}." in found.section({"a"}).lines
    with pytest.raises(InputError, match="expected heatmaps of the model of this report, found those of runs/own"):
        Explained.read(maps, {"a"}, [tmp_path / "another"])
