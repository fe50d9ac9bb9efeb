"""How large and how fast a student is: what else than its score a search may ask for."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class ModelSize(BaseModel):
    """What a student's architecture costs; all but the latencies are known before it trains."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    parameters: int
    """Embeddings included."""
    flops: int
    """Floating-point operations of one forward pass for one example of `task.max_length` tokens,
    matrix products only; a multiplication and an addition are two."""
    disk_mb: float
    """Size of the weights in MB (10⁶ bytes) as they are saved: in bfloat16 where the student is
    trained in it, else in fp32."""
    latency_ms: float | None = None
    """Milliseconds for one example of `task.max_length` tokens on the trial's device."""
    latency_ms_batch_32: float | None = None
    """Milliseconds for 32 of them together."""
    device: str | None = None
    """What the latencies were measured on and how, as `NVIDIA H200, bf16`."""
