"""Pseudo-labels of recordings by trained networks, and proof of who labelled what.

Takes the networks of a round, returns annotations for the next and their provenance; never imports analysis.
"""
