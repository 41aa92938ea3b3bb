"""The use cases, one verb per module. Each takes a connection and runs in the caller's transaction."""
