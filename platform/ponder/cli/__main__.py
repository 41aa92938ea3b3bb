"""Runs `python -m ponder.cli`, for when the console script is not on the path."""

from ponder.cli.main import main

main()
