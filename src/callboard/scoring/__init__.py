"""Scores recordings with trained networks: windows, recordings, blends, metrics.

Takes weights and frames, gives score tables and numbers between 0 and 1; never imports training.
"""
