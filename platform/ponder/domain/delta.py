"""Reads a tree's delta without knowing the tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def num_sampled(delta: Mapping[str, Any]) -> int:
    """Counts the token ids that sampling added. Those of node 0, the root, are the prompt."""
    return sum(len(row.get("ids", ())) for row in delta.get("nodes", ()) if row["node"] != 0)
