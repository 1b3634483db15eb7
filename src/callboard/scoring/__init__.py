"""Score recordings with trained networks: windows, recordings, blends, metrics.

Takes weights and frames, returns score tables and metrics; never imports training.
"""
