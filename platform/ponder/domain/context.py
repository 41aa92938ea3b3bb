"""Tells, without a tokenizer, that a prompt cannot fit into a model's context."""

from __future__ import annotations

_CHARACTERS_A_TOKEN = 16
"""More than any tokenizer fits into a token on average. A longer prompt is certainly too long."""


def cannot_fit(num_messages: int, num_characters: int, context_length: int) -> bool:
    """Returns whether a prompt is too long for any tokenizer. Even an empty message costs the token that ends it."""
    return num_messages > context_length or num_characters > context_length * _CHARACTERS_A_TOKEN
