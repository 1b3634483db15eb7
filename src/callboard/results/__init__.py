"""Finds what finished pipelines left, by one rule of names, and keeps it in git, MLflow and leaderboard.csv.

Takes names and commits, gives parameters, scores and files; imports core and params alone, and no torch.
"""
