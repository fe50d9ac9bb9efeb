"""Telling a lack of memory from other errors, and from a GPU that is lost; loads nothing."""

import re

# Of CUDA, NCCL and ROCm; of cuBLAS and cuDNN, which tell of their own workspaces by a code; of
# PyTorch on the host, and of the system.
_TEXT = re.compile(
    r"out of memory|_STATUS_ALLOC_FAILED|can(no|')t allocate memory|not enough memory",
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, on a GPU or on the host."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not loaded here
        or _TEXT.search(str(error)) is not None
    )


def gpu_is_lost() -> bool:
    """Whether the GPU answers no more, as after an illegal access (not after a mere lack)."""
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
