"""The commands `ponder fleet …`."""
