"""The web console: server-rendered pages over the functions that answer the API's routes."""
