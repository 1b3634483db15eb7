"""Turn recordings and annotations on disk into checked tables, clips and folds.

Reads folders and CSV files, returns data frames and waveforms as arrays; never imports experiments or torch.
"""
