"""Layouts of data sets: one file an adapter, one line in the registry."""

from __future__ import annotations

from cxrtool.data.datasets import covidgr, folder, table
from cxrtool.data.datasets.record import Adapter

ADAPTERS: dict[str, Adapter] = {
    "folder": folder.read,
    "csv": table.read,
    "covidgr": covidgr.read,
}
"""What `prepare --dataset` takes; every adapter yields one record an image."""
