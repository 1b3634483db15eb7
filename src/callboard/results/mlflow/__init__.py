"""Writes results to MLflow, once each, reads them back, and serves them."""
