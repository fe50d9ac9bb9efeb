"""Schedulers: they stop trials early."""
