"""The loss: losses of single cells, and the terms that average over cells."""
