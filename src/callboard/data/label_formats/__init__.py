"""Labels of other programs: one module per format, each to and from the same form."""
