"""cxrtool: from a folder of chest radiographs to an answer one can trust."""

__version__ = "0.1.0"
