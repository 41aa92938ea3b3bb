"""Rows out of the files that people have, one module a kind of file."""
