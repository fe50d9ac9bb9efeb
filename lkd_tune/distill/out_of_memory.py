"""Telling a lack of memory from other errors, and from a GPU that is lost; loads nothing."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, on a GPU or on the host."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not loaded here
        or "can't allocate memory" in text
        or "not enough memory" in text
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
