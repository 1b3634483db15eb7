"""Computes numbers about results: differences, intervals, verdicts, suspects, troubles.

Takes results, gives plain objects; renders nothing and never imports reports.
"""
