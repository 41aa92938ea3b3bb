"""What cannot fit into a model's context, as far as that can be told without a tokenizer."""

from __future__ import annotations

_CHARACTERS_A_TOKEN = 16
"""No tokenizer gets more text than this into a token on average: beyond it a prompt is too long for certain."""


def cannot_fit(num_messages: int, num_characters: int, context_length: int) -> bool:
    """Whether it is too long however it is cut into tokens. An empty message, too, costs the token that ends it."""
    return num_messages > context_length or num_characters > context_length * _CHARACTERS_A_TOKEN
