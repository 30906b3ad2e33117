"""Layouts of data sets, one file each: every module in this folder is imported, and a data set's enters it."""

from __future__ import annotations

import importlib
import pkgutil

# These two read what is no published set, and stand first in the help.
from cxrtool.data.datasets import folder, table  # noqa: F401
from cxrtool.data.datasets.registry import ADAPTERS

__all__ = ["ADAPTERS"]


def import_all() -> None:
    """Import every module in this folder."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)


import_all()
