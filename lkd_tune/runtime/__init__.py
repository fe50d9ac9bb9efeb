"""The process that trains: its process group, DeepSpeed, precision, memory and cost."""
