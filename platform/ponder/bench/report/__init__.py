"""One page that shows a run, with plots of its own."""
