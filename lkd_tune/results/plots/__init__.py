"""Pictures of a run; each function returns a figure, or None where a run has nothing to show."""
