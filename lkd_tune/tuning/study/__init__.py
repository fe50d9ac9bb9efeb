"""The Optuna study of a search: its journal, drawing trials, reporting how they end."""
