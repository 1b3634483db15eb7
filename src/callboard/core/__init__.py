"""Serves every room: errors, files that are whole or absent, caches, threads, console, code fingerprints.

Knows nothing of sound, parameters or results; imports no other room and no torch.
"""
