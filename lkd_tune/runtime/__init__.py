"""The training process: its process group, DeepSpeed, CPU settings, memory and cost."""
