"""The page of `callboard review`: pictures and sounds of its items, and the server that takes verdicts."""
