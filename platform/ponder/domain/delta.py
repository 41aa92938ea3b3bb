"""What a tree's delta says to those who do not know the tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def num_sampled(delta: Mapping[str, Any]) -> int:
    """Token ids that sampling added; those of node 0, the root, are the prompt."""
    return sum(len(row.get("ids", ())) for row in delta.get("nodes", ()) if row["node"] != 0)
