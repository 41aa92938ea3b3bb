"""The HTTP API: OpenAI's Batch API, with additions of ponder's own."""
