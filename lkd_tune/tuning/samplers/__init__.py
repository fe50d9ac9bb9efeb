"""Samplers: they draw the parameters of the next trial."""
