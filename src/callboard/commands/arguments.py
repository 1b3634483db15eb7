"""Help texts of arguments that several subcommands take."""

RESULT_NAME = "an experiment, branch, tag or run; NAME@KEY, or a content key, of which 4 digits are enough"
"""Help on the name of a result; `results/lookup.py` holds the rule."""
