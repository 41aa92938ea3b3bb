"""Expands nodes: token budget, streams of tokens, finished children in a fixed order, and their scores."""
