"""The routes of /v1/fleet, for operators."""
