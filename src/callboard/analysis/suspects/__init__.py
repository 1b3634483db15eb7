"""Ranking of labels that the networks doubt and cells that they miss, for a person to review."""
