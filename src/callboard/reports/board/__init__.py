"""Formats the board as a table, a page and a CSV file."""
