"""The loss: what each cell costs, and the terms that average over cells."""
