"""Training of one fold's network.

Takes parameters, a fold and its data, returns weights and a learning curve; never imports pseudo or MLflow.
"""
