import json

import numpy as np

from cxrtool.commands.info import InfoOptions, info
from cxrtool.flow.fold_training import decide_on_validation
from cxrtool.flow.settings import Settings


def test_a_model_tells_its_temperature_and_thresholds(tmp_path):
    rng = np.random.default_rng(0)
    labels = ["a" if k % 4 else "b" for k in range(60)]
    share = rng.random(60)
    made = decide_on_validation(["a", "b"], labels, np.stack([share, 1 - share], axis=1))
    model = {"schema": 1, "classes": ["a", "b"], "architecture": {"name": "x"}, "chain": [], **made}
    (tmp_path / "model.json").write_text(json.dumps(model))
    found = info(InfoOptions(tmp_path), Settings())
    assert found.facts["calibration"] == (
        f"temperature {made['calibration']['temperature']:.3g}, fitted on 60 validation images"
    )
    assert "thresholds" not in found.facts
    (_, columns, rows) = found.tables[0]
    assert columns == ["class", "validation images", "0.90", "0.95", "0.99"]
    expected = [made["thresholds"]["a"][s]["threshold"] for s in ("0.90", "0.95")]
    assert rows[0] == ["a", "45", *(f"{value:.3f}" for value in expected), "-"]
    assert rows[1] == ["b", "15", f"{made['thresholds']['b']['0.90']['threshold']:.3f}", "-", "-"]
