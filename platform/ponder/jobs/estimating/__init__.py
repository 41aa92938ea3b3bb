"""Learns what completed jobs took, and estimates what others will take."""
