"""Telling a lack of memory from other errors; loads nothing."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory was short, on a GPU or on the host."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not loaded here
        or "can't allocate memory" in text
        or "not enough memory" in text
    )
