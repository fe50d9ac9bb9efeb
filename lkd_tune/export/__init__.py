"""Students as folders to deploy: Hugging Face, ONNX, torch.export, with a model card."""
