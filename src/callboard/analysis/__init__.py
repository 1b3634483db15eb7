"""Numbers about results: differences, noise, verdicts, correlations, suspects. Renders nothing."""
