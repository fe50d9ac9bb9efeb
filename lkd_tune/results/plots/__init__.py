"""Plots for a run's report."""
