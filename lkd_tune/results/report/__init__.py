"""The report page, and serving it."""
