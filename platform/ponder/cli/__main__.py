"""`python -m ponder.cli`, where the console script may not be on the path."""

from ponder.cli.main import main

main()
