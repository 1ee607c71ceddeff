"""Reductions of 2^28 f32 by PyTorch and by CuPy (CUB), in bytes read."""

import os
from typing import Any, Iterator

import torch

from harness import Candidate, Operation, measure, relative_error

LENGTH = 1 << 28
TOLERANCE = 1e-5


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures sum, max and variance with mean."""
    # One buffer is enough: it is far larger than three times the L2.
    values = torch.randn(LENGTH, device="cuda")
    wide = values.double()
    mean = wide.mean()
    expected = {
        "sum": wide.sum().reshape(1),
        "max": wide.max().reshape(1),
        "var_mean": torch.stack([(wide - mean).square().mean(), mean]),
    }
    # What the rounding errors of a sum whose terms cancel are proportional to.
    scales = {"sum": wide.abs().sum().item(), "max": 1.0, "var_mean": 1.0}
    del wide

    candidates = {
        "sum": [Candidate("torch", lambda i: torch.sum(values))],
        "max": [Candidate("torch", lambda i: torch.max(values))],
        "var_mean": [Candidate("torch", lambda i: torch.var_mean(values, correction=0))],
    }
    cupy_sum = cupy_sum_of(values)
    if cupy_sum is None:
        yield {
            "record": "measurement",
            "operation": "sum",
            "peer": "cupy",
            "status": "skipped",
            "reason": "cupy is not installed; pip install cupy-cuda13x",
        }
    else:
        candidates["sum"].append(cupy_sum)

    for name, of_this_operation in candidates.items():
        operation = Operation(
            name=name,
            shape=(LENGTH,),
            bytes_moved=values.nbytes,
            buffer_sets=1,
            error_of=lambda out: relative_error(as_vector(out), expected[name], scales[name]),
            tolerance=TOLERANCE,
        )
        yield from measure(operation, of_this_operation, copy_rate)


def cupy_sum_of(values: torch.Tensor) -> Candidate | None:
    """CuPy's sum through CUB, on the memory and the default stream that PyTorch uses."""
    os.environ["CUPY_ACCELERATORS"] = "cub"
    try:
        import cupy
    except ImportError:
        return None
    array = cupy.from_dlpack(values)
    return Candidate("cupy", lambda i: cupy.sum(array))


def as_vector(result: Any) -> torch.Tensor:
    """The scalars that a reduction returned, as one tensor."""
    parts = result if isinstance(result, tuple) else (result,)
    return torch.stack([torch.as_tensor(float(part), device="cuda") for part in parts])
