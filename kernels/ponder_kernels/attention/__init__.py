"""Attention over paged keys and values, in which the sequences of a family read a shared page once."""
