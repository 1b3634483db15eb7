"""Turns waveforms into frames, frames into a packed cache, and clips of the cache into images.

Takes recordings and settings, gives uint8 arrays and tensors; knows no labels, no network and no score.
"""
