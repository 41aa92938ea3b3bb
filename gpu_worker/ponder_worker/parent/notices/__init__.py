"""Notices that a worker has to leave, and where they come from."""
