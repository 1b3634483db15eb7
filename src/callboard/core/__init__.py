"""Serves every room: errors, atomic files, caches, threads, console, code fingerprints.

Independent of sound, parameters and results; imports no other room and no torch.
"""
