"""Numbers about results: differences, intervals, verdicts, suspects, findings.

Takes results, returns plain objects; renders nothing and never imports reports.
"""
