"""Frozen values and the legal moves between states. Knows no database, no network and no clock."""
