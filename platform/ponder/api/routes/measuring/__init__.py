"""The routes of what is measured: jobs one by one, workers over time, and runs of `ponder bench`."""
