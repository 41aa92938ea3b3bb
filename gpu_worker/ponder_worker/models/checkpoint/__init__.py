"""Reading of a model folder: configuration, weights, tokenizer and chat template."""
