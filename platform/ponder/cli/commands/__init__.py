"""The commands of `ponder`."""
