"""Makes the built-in world: recordings with the layout and the troubles of the competition, truth known."""
