"""GGUF files, llama.cpp's format of a whole model, read as a folder in Hugging Face's format."""
