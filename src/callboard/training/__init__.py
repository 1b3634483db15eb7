"""Fits the network of one fold.

Takes parameters, a fold and its data, gives weights and a learning curve; never imports pseudo or MLflow.
"""
