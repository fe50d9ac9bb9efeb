"""Recognises errors that come from a lack of memory, and a lost GPU; imports no library."""

import re

# Messages of CUDA, NCCL and ROCm; status codes of cuBLAS and cuDNN, for their workspaces;
# messages of PyTorch on the host and of the system. oneDNN does not give the reason, but PyTorch
# does not ask it for what it has no kernels for.
_OOM_MESSAGE = re.compile(
    r"out of memory|_STATUS_ALLOC_FAILED|can(no|')t allocate memory|not enough memory"
    r"|could not create a (primitive|memory object)",
    re.IGNORECASE,
)


def is_out_of_memory(error: Exception) -> bool:
    """Returns whether an error means that memory ran out, on a GPU or on the host."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not loaded here
        or _OOM_MESSAGE.search(str(error)) is not None
    )


def gpu_is_lost() -> bool:
    """Returns whether the GPU no longer responds, as after an illegal access.

    After a mere lack of memory it still does.
    """
    import torch

    if not torch.cuda.is_available():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False
