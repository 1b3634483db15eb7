"""Judges whether CV still follows LB over many results, and which estimate of CV follows it best."""
