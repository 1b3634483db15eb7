"""Settings for a folder of recordings and tables, each with its reason."""
