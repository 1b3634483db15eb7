"""Checks for missing or inconsistent state in git, DVC and MLflow, each with its remedy."""
