"""Owns the memory for keys and values: pages, the prefixes found in them, and the slabs that several models share."""
