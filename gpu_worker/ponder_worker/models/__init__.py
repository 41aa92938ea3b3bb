"""Model families, weights, tokenizer and reward kinds: what a model folder in Hugging Face's format holds."""
