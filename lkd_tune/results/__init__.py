"""A finished or running search, read back from its run folder."""
