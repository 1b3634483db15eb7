"""Stages that run side by side, in copies of the workspace that share DVC's cache."""
