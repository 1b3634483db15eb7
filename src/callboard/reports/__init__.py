"""Renders what analysis found as text, Markdown, CSV and HTML.

Takes the objects of analysis, gives text or files; computes no statistic; never imports commands.
"""
