"""Turn waveforms into frames, frames into a packed cache, and clips of the cache into images.

Takes recordings and settings, returns uint8 arrays and tensors; independent of labels, networks and scores.
"""
