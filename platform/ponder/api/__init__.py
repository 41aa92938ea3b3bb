"""The front door: OpenAI's Batch API, and beside it what is ponder's own."""
