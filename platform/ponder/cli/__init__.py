"""The command line: thin commands over the HTTP API, and the starters of the services."""
