"""Test-time search over token ids and scores: strategies, the tree they grow, its expansion and its ranking."""
