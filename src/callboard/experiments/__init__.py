"""Runs experiments: rows of experiments.yaml become overrides, and overrides become results.

Takes names of rows, returns results with their names and captions; never imports data or torch.
"""
