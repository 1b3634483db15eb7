"""Renders what analysis found as text, Markdown, CSV and HTML.

Takes the objects of analysis and gives text or files; computes no statistics; never imports commands.
"""
