"""Rib-suppression networks by name: what `cxrtool fit ribs --network` takes, and `enhance` understands."""

from __future__ import annotations

from cxrtool.models.parts import PartNetwork

NETWORKS: dict[str, PartNetwork] = {}
"""Name to network; the first is the default."""
