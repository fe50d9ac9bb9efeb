"""Searches as jobs of a Ray cluster."""
