"""A trained student in formats that run without transformers, each checked against it."""
