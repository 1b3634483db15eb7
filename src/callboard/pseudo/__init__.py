"""Labels recordings with trained networks, and proves who labelled what.

Takes the networks of a round, gives annotations for the next and their provenance; never imports analysis.
"""
