"""Trials as Ray Tune runs them: worker groups, retries, and what happens as trials end."""
