"""Make the built-in soundscapes: recordings as in the competition, with its difficulties, truth known."""
