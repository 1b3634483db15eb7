"""Writes one result as a page: learning curves, errors, calibration and a leak audit."""
