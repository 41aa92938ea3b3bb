"""Deletes what users sent and got, once its time has passed."""
