"""Layouts of data sets, one module each; every module in this folder is imported and registers its data set."""

from __future__ import annotations

import importlib
import pkgutil

# These do not read a published set, and come first in the help.
from cxrtool.data.datasets import folder, paths, table  # noqa: F401
from cxrtool.data.datasets.registry import ADAPTERS

__all__ = ["ADAPTERS"]


def import_all() -> None:
    """Import every module in this folder."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)


import_all()
