"""Frozen values and the legal moves between states, without database, network or clock."""
