"""The use cases, one verb a module. Each takes a connection inside the caller's transaction."""
