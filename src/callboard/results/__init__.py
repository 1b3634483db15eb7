"""Finds results of finished pipelines by one rule of names; keeps them in git, MLflow and leaderboard.csv.

Takes names and commits, returns parameters, scores and files; imports only core and params, and no torch.
"""
