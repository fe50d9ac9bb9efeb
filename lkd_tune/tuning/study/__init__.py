"""The Optuna study: its storage, its parameters, the trials it asks for and is told of."""
