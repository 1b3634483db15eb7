"""Sends submissions to Kaggle and reads their scores, through Kaggle's own client, which is optional."""
