"""`predict` against the slower of bare reading and the bare forward pass, and a table that grew against a new one."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from cxrtool.commands.predict import PredictOptions, predict
from cxrtool.data.tables.manifest import write_manifest
from cxrtool.flow.parallel import map_items
from cxrtool.flow.replaying import decode
from cxrtool.flow.settings import Settings
from cxrtool.training.device import local_randomness
from cxrtool.training.inference import Ensemble

DRAWN, SIDE, COUNT, WANTED = 48, 224, 1000, 0.85


def read(path):
    return decode(path, chain=[], size=SIDE, fit="squash")[0]


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@pytest.mark.bench
def test_predict(train_study, make_study, tmp_path, cxr):
    study = make_study(tmp_path / "study")
    model = train_study(study, size=SIDE, epochs=1) / "r0f0"
    assert cxr("phantom", "--count", DRAWN, "--size", SIDE, "-q", "-o", tmp_path / "raw").code == 0
    paths = sorted((tmp_path / "raw" / "images").rglob("*.png"))
    rows = [{"image_id": f"im{k:05}", "path": str(paths[k % len(paths)])} for k in range(COUNT + 1)]
    for threads, workers in ((1, 1), (1, 2), (2, 2)):
        settings = Settings(out=tmp_path / f"{threads}-{workers}.csv", threads=threads, workers=workers, device="cpu")
        write_manifest(tmp_path / "images.csv", ["image_id", "path"], rows[:COUNT])
        options = PredictOptions(model, (str(tmp_path / "images.csv"),))
        pictures = [read(path) for path in paths] * (COUNT // len(paths) + 1)
        with local_randomness(0, threads):
            ensemble = Ensemble([model], torch.device("cpu"))

            def forward(ensemble=ensemble, pictures=pictures):
                for start in range(0, COUNT, 32):
                    ensemble.predict(pictures[start : min(start + 32, COUNT)])

            def reading(workers=workers):
                for _ in map_items(read, [row["path"] for row in rows[:COUNT]], workers=workers):
                    pass

            bare = np.array([timed(forward), timed(reading)])
        whole = timed(lambda options=options, settings=settings: predict(options, settings))
        write_manifest(tmp_path / "images.csv", ["image_id", "path"], rows)
        grown = timed(lambda options=options, settings=settings: predict(options, settings))
        anew = replace(settings, force=True)
        again = timed(lambda options=options, anew=anew: predict(options, anew))
        print(
            f"\n{threads} threads, {workers} workers: forward {bare[0]:.2f} s, reading {bare[1]:.2f} s, predict "
            f"{whole:.2f} s: {bare.max() / whole:.3f} of the slower (wanted at least {WANTED}), "
            f"{bare.sum() / 2 / whole:.3f} of both shared by two processors; one image more {grown:.2f} s, "
            f"{grown / again:.3f} of all again"
        )
