"""A review by a person: which windows and labels to judge, in which order, and the tables of verdicts."""
