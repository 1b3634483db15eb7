"""Sends submissions to Kaggle and reads their scores by Kaggle's own command, which is optional."""
