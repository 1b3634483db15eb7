"""Thresholds on scores of windows above which detections have a precision that was asked for."""
