"""Tests whether test recordings can be distinguished from training recordings, and by what."""
