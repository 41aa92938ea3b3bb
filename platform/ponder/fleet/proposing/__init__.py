"""The plans as an autoscaler with given orders acts on them, for itself and for those who ask."""
