"""A product of matrices with bias and GELU (tanh) by PyTorch: cuBLASLt's fused call, and the calls apart.

d = gelu(a·bᵀ + bias), a [m, k], b [n, k]. fp8 has no fused GELU there: it is the product with scales and bias alone, which
is less work: `cublaslt` as PyTorch calls it by default, with partial sums added up in f32, `cublaslt_fast` with
`use_fast_accum`, whose sums stay in the tensor cores' accumulators. Values are standard normal, as those of `kasmina bench`:
the power that a product draws depends on them. Bytes are those of the floor: a, b, bias and d, each once.
"""

from typing import Any, Iterator

import torch
import torch.nn.functional as F

from harness import Candidate, Operation, buffer_sets, measure, release_memory

SHAPES = [
    (8192, 8192, 8192),
    (4096, 4096, 4096),
    (2048, 2048, 2048),
    (4096, 14336, 4096),
    (64, 4096, 4096),
    (256, 1024, 1024),
    (1024, 1024, 1024),
    (16, 512, 512),
    (1, 4096, 4096),
    (4096, 4096, 128),
    (4095, 4097, 1031),
    (127, 257, 1000),
]
CHECKED_ROWS = 32
# Relative errors in the norm; peers are checked for doing the same thing.
TOLERANCES = {"bf16": 8e-3, "f16": 2e-3, "f32": 2e-3, "e4m3": 8e-2}


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures every shape in bf16, the large ones in fp8, one in f16 and in tf32, by events and graph replay."""
    for shape in SHAPES:
        yield from of(shape, "bf16", torch.bfloat16, copy_rate)
    yield from of(SHAPES[1], "f16", torch.float16, copy_rate)
    torch.backends.cuda.matmul.allow_tf32 = True
    yield from of(SHAPES[1], "f32", torch.float32, copy_rate)
    torch.backends.cuda.matmul.allow_tf32 = False
    for shape in SHAPES[:2]:
        yield from of_fp8(shape, copy_rate)


def error_in_norm(d: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor, gelu: bool) -> float:
    rows = torch.linspace(0, a.shape[0] - 1, min(CHECKED_ROWS, a.shape[0]), device="cuda").long()
    expected = a[rows].double() @ b.double().T + bias.double()
    if gelu:
        expected = F.gelu(expected, approximate="tanh")
    return ((d[rows].double() - expected).norm() / expected.norm()).item()


def of(shape, name: str, dtype: torch.dtype, copy_rate: float) -> list[dict[str, Any]]:
    m, n, k = shape
    moved = (m * k + n * k + n + m * n) * dtype.itemsize
    sets = buffer_sets(moved)

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, device="cuda", dtype=dtype)

    a, b, bias = [draw(m, k) for _ in range(sets)], [draw(n, k) for _ in range(sets)], draw(n)
    operation = Operation(
        name={"f32": "linear_tf32", "bf16": "linear_bf16", "f16": "linear_f16"}[name],
        shape=shape,
        bytes_moved=moved,
        buffer_sets=sets,
        error_of=lambda d: error_in_norm(d, a[0], b[0], bias, True),
        tolerance=TOLERANCES[name],
        dtype=name,
    )
    candidates = [
        Candidate(
            "cublaslt",
            lambda i: torch._addmm_activation(bias, a[i % sets], b[i % sets].t(), use_gelu=True),
        ),
        Candidate(
            "eager",
            lambda i: F.gelu(F.linear(a[i % sets], b[i % sets], bias), approximate="tanh"),
        ),
    ]
    result = measure(operation, candidates, copy_rate, graph=True)
    del a, b, candidates
    release_memory()
    return result


def of_fp8(shape, copy_rate: float) -> list[dict[str, Any]]:
    m, n, k = shape
    moved = m * k + n * k + 2 * (n + m * n)
    sets = buffer_sets(moved)
    kind = torch.float8_e4m3fn

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, device="cuda").to(kind)

    a, b = [draw(m, k) for _ in range(sets)], [draw(n, k) for _ in range(sets)]
    bias = torch.randn(n, device="cuda", dtype=torch.bfloat16)
    one = torch.ones((), device="cuda")
    operation = Operation(
        name="linear_fp8",
        shape=shape,
        bytes_moved=moved,
        buffer_sets=sets,
        error_of=lambda d: error_in_norm(d, a[0].float(), b[0].float(), bias, False),
        tolerance=TOLERANCES["e4m3"],
        dtype="e4m3",
    )

    def scaled(i: int, fast: bool) -> torch.Tensor:
        return torch._scaled_mm(
            a[i % sets],
            b[i % sets].t(),
            one,
            one,
            bias=bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=fast,
        )

    candidates = [
        Candidate("cublaslt", lambda i: scaled(i, False)),
        Candidate("cublaslt_fast", lambda i: scaled(i, True)),
    ]
    result = measure(operation, candidates, copy_rate, graph=True)
    del a, b
    release_memory()
    # The same times beside the kernels with sums in f32 and beside those without.
    return result + [record | {"operation": "linear_fp8_fast"} for record in result]
