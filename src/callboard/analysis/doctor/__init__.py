"""Finds what is missing or inconsistent between git, DVC and MLflow, each with its remedy."""
