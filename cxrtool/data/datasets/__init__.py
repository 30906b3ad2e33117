"""Layouts of data sets: one file an adapter, one line in the registry."""

from __future__ import annotations

from cxrtool.data.datasets import (
    actualmed,
    bimcv,
    cohen,
    covidgr,
    covidx,
    figure1,
    folder,
    jsrt,
    kaggle,
    montgomery,
    padchest,
    radiography,
    rsna,
    shenzhen,
    table,
)
from cxrtool.data.datasets.record import Adapter

ADAPTERS: dict[str, Adapter] = {
    "folder": folder.read,
    "csv": table.read,
    "actualmed": actualmed.read,
    "bimcv": bimcv.read,
    "cohen": cohen.read,
    "covidgr": covidgr.read,
    "covidx": covidx.read,
    "figure1": figure1.read,
    "jsrt": jsrt.read,
    "kaggle-pneumonia": kaggle.read,
    "montgomery": montgomery.read,
    "padchest": padchest.read,
    "radiography-db": radiography.read,
    "rsna": rsna.read,
    "shenzhen": shenzhen.read,
}
"""What `prepare --dataset` takes; every adapter yields one record an image."""
