"""Transformers, their weights, tokenizers and reward kinds, read from model folders in Hugging Face's format."""
