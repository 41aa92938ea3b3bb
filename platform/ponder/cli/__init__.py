"""The command line: thin commands over the HTTP API, and commands that start the services."""
