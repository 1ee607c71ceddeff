"""An activation with layer norm or RMS norm, forward and backward, by PyTorch eager and compiled.

The forward pass is y = norm(act(x))·γ + β (no β for RMS norm), the backward pass ∂x, ∂γ and ∂β for one
∂y. γ and β have the element type of x, which PyTorch's fused kernels ask for. Bytes are those of the
floor: x and y, or x, ∂y and ∂x, each once.
"""

from dataclasses import dataclass
from typing import Any, Callable, Iterator

import torch
import torch.nn.functional as F

from harness import Candidate, Operation, buffer_sets, measure, relative_error, release_memory

EPSILON = 1e-5
CASES = [
    ("gelu_layer_norm", (16384, 1024), torch.float32),
    ("gelu_layer_norm", (16384, 4096), torch.float32),
    ("gelu_layer_norm", (8192, 8192), torch.float32),
    ("gelu_layer_norm", (16384, 4096), torch.bfloat16),
    ("gelu_layer_norm", (16384, 4096), torch.float16),
    ("silu_rms_norm", (16384, 4096), torch.float32),
    ("silu_rms_norm", (16384, 4096), torch.bfloat16),
    ("layer_norm", (16384, 4096), torch.float32),
    ("layer_norm", (4096, 16384), torch.bfloat16),
]
DTYPES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16"}
# Peers are checked for doing the same thing, not for their last digits.
TOLERANCES = {"f32": 1e-4, "f16": 1e-2, "bf16": 5e-2}
CHECKED_ROWS = 32


def gelu_layer_norm(x, gamma, beta):
    return F.layer_norm(F.gelu(x), gamma.shape, gamma, beta, EPSILON)


def silu_rms_norm(x, gamma):
    return F.rms_norm(F.silu(x), gamma.shape, gamma, EPSILON)


def layer_norm(x, gamma, beta):
    return F.layer_norm(x, gamma.shape, gamma, beta, EPSILON)


FUNCTIONS: dict[str, Callable[..., torch.Tensor]] = {
    "gelu_layer_norm": gelu_layer_norm,
    "silu_rms_norm": silu_rms_norm,
    "layer_norm": layer_norm,
}


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures every case, forward by events and by graph replay, backward by events."""
    import torch._functorch.config

    # A graph that is differentiated more than once keeps its buffers.
    torch._functorch.config.donated_buffer = False
    for name, shape, dtype in CASES:
        yield from forward_records(name, shape, dtype, copy_rate)
        release_memory()
        yield from backward_records(name, shape, dtype, copy_rate)
        release_memory()


@dataclass(frozen=True)
class Tensors:
    """`sets` inputs and gradients, and one set of parameters."""

    x: list[torch.Tensor]
    grad_output: list[torch.Tensor]
    parameters: list[torch.Tensor]

    @staticmethod
    def random(name: str, shape: tuple[int, int], dtype: torch.dtype, sets: int) -> "Tensors":
        def draw(*size: int) -> torch.Tensor:
            return torch.randn(*size, device="cuda", dtype=dtype)

        parameters = [1 + 0.1 * draw(shape[1])]
        if name != "silu_rms_norm":
            parameters.append(draw(shape[1]))
        return Tensors(
            x=[draw(*shape) for _ in range(sets)],
            grad_output=[draw(*shape) for _ in range(sets)],
            parameters=parameters,
        )


def forward_records(name, shape, dtype, copy_rate) -> list[dict[str, Any]]:
    moved = 2 * shape[0] * shape[1] * dtype.itemsize
    sets = buffer_sets(moved)
    tensors = Tensors.random(name, shape, dtype, sets)
    function, parameters = FUNCTIONS[name], tensors.parameters
    # Each shape is compiled for itself, as a training run of one shape would be.
    torch.compiler.reset()
    compiled = torch.compile(function, dynamic=False)

    def error_of(y: torch.Tensor) -> float:
        rows = torch.linspace(0, shape[0] - 1, CHECKED_ROWS, device="cuda").long()
        wide = [p.double() for p in parameters]
        expected = function(tensors.x[0][rows].double(), *wide)
        return relative_error(y[rows], expected, expected.square().mean().sqrt().item())

    operation = Operation(
        name=name,
        shape=shape,
        bytes_moved=moved,
        buffer_sets=sets,
        error_of=error_of,
        tolerance=TOLERANCES[DTYPES[dtype]],
        dtype=DTYPES[dtype],
    )
    candidates = [
        Candidate("eager", lambda i: function(tensors.x[i % sets], *parameters)),
        Candidate("compile", lambda i: compiled(tensors.x[i % sets], *parameters)),
    ]
    with torch.no_grad():
        return measure(operation, candidates, copy_rate, graph=True)


def backward_records(name, shape, dtype, copy_rate) -> list[dict[str, Any]]:
    moved = 3 * shape[0] * shape[1] * dtype.itemsize
    sets = buffer_sets(moved)
    tensors = Tensors.random(name, shape, dtype, sets)
    function = FUNCTIONS[name]
    torch.compiler.reset()
    compiled = torch.compile(function, dynamic=False)

    def candidate(peer: str, forward: Callable[..., torch.Tensor]) -> Candidate:
        # The forward passes are done before anything is timed.
        parameters = [p.detach().requires_grad_() for p in tensors.parameters]
        inputs = [[x.detach().requires_grad_(), *parameters] for x in tensors.x]
        outputs = [forward(*of_set) for of_set in inputs]

        def run(i: int):
            k = i % sets
            return torch.autograd.grad(
                outputs[k], inputs[k], tensors.grad_output[k], retain_graph=True
            )

        return Candidate(peer, run)

    def error_of(gradients: tuple[torch.Tensor, ...]) -> float:
        wide = [t.double().requires_grad_() for t in (tensors.x[0], *tensors.parameters)]
        y = function(*wide)
        expected = torch.autograd.grad(y, wide, tensors.grad_output[0].double())
        return max(
            relative_error(got, want, want.square().mean().sqrt().item())
            for got, want in zip(gradients, expected)
        )

    operation = Operation(
        name=f"{name}_backward",
        shape=shape,
        bytes_moved=moved,
        buffer_sets=sets,
        error_of=error_of,
        tolerance=TOLERANCES[DTYPES[dtype]],
        dtype=DTYPES[dtype],
    )
    candidates = [candidate("eager", function), candidate("compile", compiled)]
    return measure(operation, candidates, copy_rate)
