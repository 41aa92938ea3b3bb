"""Steps that a user takes with a batch: submitting, changing, cancelling, retrying."""
