"""Builds the network, and saves and loads its weights with the parameters that made them.

Takes images, gives logits of each head; knows no loss, no annotation and no metric.
"""
