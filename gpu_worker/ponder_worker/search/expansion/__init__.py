"""Grows the children of a node: streams of tokens, scores, the token budget and speculation."""
