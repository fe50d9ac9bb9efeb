"""Logging a search to TensorBoard, MLflow and Weights & Biases while it runs."""
