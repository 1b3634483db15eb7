"""The board: rows, columns and blocks, as a table, a page and a CSV file."""
