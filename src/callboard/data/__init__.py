"""Turns recordings and annotations on disk into checked tables, clips and folds.

Takes folders and CSV files, gives data frames and waveforms as arrays; never imports experiments or torch.
"""
