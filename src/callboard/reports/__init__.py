"""Text, Markdown, CSV and HTML of what analysis found."""
