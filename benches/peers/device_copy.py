"""The ceiling: how fast PyTorch copies and scales 2^28 f32 on the device, in bytes read and written."""

from typing import Any, Iterator

import torch

from harness import Candidate, Operation, measure, relative_error

LENGTH = 1 << 28
SAMPLE = slice(None, None, 997)


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures `copy_` and `mul`."""
    # One set is enough: each buffer is far larger than three times the L2.
    source = torch.randn(LENGTH, device="cuda")
    target = torch.full_like(source, float("nan"))

    for name, factor, run in [
        ("copy", 1.0, lambda i: target.copy_(source)),
        ("mul", 1.5, lambda i: torch.mul(source, 1.5, out=target)),
    ]:
        expected = source[SAMPLE].double() * factor
        operation = Operation(
            name=name,
            shape=(LENGTH,),
            bytes_moved=2 * source.nbytes,
            buffer_sets=1,
            error_of=lambda out: relative_error(out[SAMPLE], expected, 1e-30),
            tolerance=1e-6,
        )
        yield from measure(operation, [Candidate("torch", run)], copy_rate)
