"""Tests whether recordings of the test set can be told from those of the training set, and by what."""
