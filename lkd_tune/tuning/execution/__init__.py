"""Trials as Ray Tune runs them: processes, worker groups, retries."""
