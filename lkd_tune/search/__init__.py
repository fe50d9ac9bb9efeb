"""Many distillations: Optuna draws them, Ray Tune runs them, the best students are kept."""
