"""A search read back from its run folder."""
