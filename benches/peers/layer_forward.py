"""The layer's forward pass with telemetry, f32, as people run it today: eager, compiled and in Triton.

A third of the seeds graft, with the three v1 strategies in turn: linear y = (1−α)·x + α·x·w, multiplicative
y = x·w, additive y = x + w. The others are the identity. Telemetry of a seed is the sum, the sum of squares,
the minimum, the maximum and the count of its input; of `triton_chunk` the sum, the sum of squares and the count.

`triton_chunk` is cut as the layer's published chunk kernel is: one program for a row and a seed, blocks of 256
elements, atomics of Triton's default order. `triton_row` and `triton_tile` are what Triton can do better.
"""

from dataclasses import dataclass
from typing import Any, Iterator

import torch
import triton
import triton.language as tl

from harness import Candidate, Operation, buffer_sets, measure, relative_error, release_memory

SHAPES = [
    (32, 1000, 64),
    (128, 1000, 64),
    (4096, 1000, 64),
    (4096, 16, 4096),
    (8192, 64, 1024),
]
BLUEPRINTS = 8
GRAFTING, FOSSILIZED = 3, 7
LINEAR, MULTIPLICATIVE, ADDITIVE = 0, 1, 2
TILE_ELEMENTS = 4096
TOLERANCE = 1e-5
CHECKED_SEEDS = 12


@dataclass(frozen=True)
class State:
    """One value for each seed, and the blueprints' weights `[BLUEPRINTS, chunk]`."""

    lifecycle: torch.Tensor
    strategy: torch.Tensor
    blueprint_id: torch.Tensor
    alpha: torch.Tensor
    weights: torch.Tensor

    @staticmethod
    def random(seeds: int, chunk: int) -> "State":
        """Every third seed grafts; the blueprint 0 stands for none and is not used."""
        seed = torch.arange(seeds, device="cuda", dtype=torch.int32)
        return State(
            lifecycle=torch.where(seed % 3 == 0, GRAFTING, 0).int(),
            strategy=(seed // 3) % 3,
            blueprint_id=1 + seed % (BLUEPRINTS - 1),
            alpha=torch.rand(seeds, device="cuda"),
            weights=torch.randn(BLUEPRINTS, chunk, device="cuda"),
        )


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures every shape, by events and by graph replay."""
    for shape in SHAPES:
        yield from shape_records(shape, copy_rate)
        release_memory()


def shape_records(shape: tuple[int, int, int], copy_rate: float) -> list[dict[str, Any]]:
    batch, seeds, chunk = shape
    bytes_moved = 2 * 4 * batch * seeds * chunk
    sets = buffer_sets(bytes_moved)
    state = State.random(seeds, chunk)
    inputs = [torch.randn(batch, seeds * chunk, device="cuda") for _ in range(sets)]

    # Each shape is compiled for itself, as a training run of one shape would be.
    torch.compiler.reset()
    compiled = torch.compile(vectorised_layer, dynamic=False)
    tile_rows = max(1, TILE_ELEMENTS // triton.next_power_of_2(chunk))
    candidates = [
        Candidate("eager", lambda i: vectorised_layer(inputs[i % sets], *fields(state))),
        Candidate("compile", lambda i: compiled(inputs[i % sets], *fields(state))),
        ChunkLayer(inputs, state).candidate("triton_chunk"),
        TritonLayer(inputs, state, rows=1).candidate("triton_row"),
    ]
    if tile_rows > 1:
        candidates.append(TritonLayer(inputs, state, rows=tile_rows).candidate("triton_tile"))

    operation = Operation(
        name="layer_forward",
        shape=shape,
        bytes_moved=bytes_moved,
        buffer_sets=sets,
        error_of=lambda result: largest_error(result, inputs[0], state),
        tolerance=TOLERANCE,
    )
    return measure(operation, candidates, copy_rate, graph=True)


def fields(state: State) -> tuple[torch.Tensor, ...]:
    return state.lifecycle, state.strategy, state.blueprint_id, state.alpha, state.weights


def vectorised_layer(x, lifecycle, strategy, blueprint_id, alpha, weights):
    """Output and telemetry `[4, seeds]` (sum, sum of squares, minimum, maximum), all seeds at once."""
    chunks = x.view(x.shape[0], lifecycle.shape[0], weights.shape[1])
    active = ((lifecycle >= GRAFTING) & (lifecycle <= FOSSILIZED))[:, None]
    a, how, w = alpha[:, None], strategy[:, None], weights[blueprint_id]
    scaled = chunks * w
    blended = torch.where(
        how == LINEAR,
        (1 - a) * chunks + a * scaled,
        torch.where(how == MULTIPLICATIVE, scaled, chunks + w),
    )
    y = torch.where(active, blended, chunks)
    telemetry = torch.stack(
        [
            chunks.sum((0, 2)),
            (chunks * chunks).sum((0, 2)),
            chunks.amin((0, 2)),
            chunks.amax((0, 2)),
        ]
    )
    return y.view_as(x), telemetry


class TritonLayer:
    """The chunk kernel with its buffers: one program for each seed and `rows` rows of the batch."""

    def __init__(self, inputs: list[torch.Tensor], state: State, rows: int):
        seeds = state.lifecycle.numel()
        self.inputs, self.state, self.rows = inputs, state, rows
        # Poisoned, so that an element that is not written fails the check.
        self.outputs = [torch.full_like(x, float("nan")) for x in inputs]
        bounds = torch.tensor([0.0, 0.0, float("inf"), -float("inf")], device="cuda")
        self.cleared = bounds[:, None].repeat(1, seeds)
        self.telemetry = torch.empty_like(self.cleared)
        self.counts = torch.empty(seeds, dtype=torch.int32, device="cuda")

    def candidate(self, name: str) -> Candidate:
        return Candidate(name, self.run)

    def run(self, i: int):
        x, y = self.inputs[i % len(self.inputs)], self.outputs[i % len(self.inputs)]
        batch, hidden = x.shape
        chunk = self.state.weights.shape[1]
        seeds = hidden // chunk
        # The reset is part of the forward pass: the kernel accumulates.
        self.telemetry.copy_(self.cleared)
        self.counts.zero_()
        columns = triton.next_power_of_2(chunk)
        layer_kernel[(seeds, triton.cdiv(batch, self.rows))](
            x,
            y,
            *fields(self.state),
            self.telemetry,
            self.counts,
            batch,
            seeds,
            chunk,
            ROWS=self.rows,
            COLUMNS=columns,
            num_warps=min(8, max(1, self.rows * columns // 256)),
        )
        return y, self.telemetry, self.counts


@triton.jit
def layer_kernel(
    x,
    y,
    lifecycle,
    strategy,
    blueprint_id,
    alpha,
    weights,
    telemetry,
    counts,
    batch,
    seeds,
    chunk,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    seed = tl.program_id(0)
    row = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = (row < batch)[:, None] & (column < chunk)[None, :]
    offset = row.to(tl.int64)[:, None] * (seeds * chunk) + (seed * chunk + column)[None, :]
    value = tl.load(x + offset, mask=inside, other=0.0)

    state = tl.load(lifecycle + seed)
    out = value
    # GRAFTING to FOSSILIZED.
    if (state >= 3) & (state <= 7):
        blueprint = tl.load(blueprint_id + seed)
        w = tl.load(weights + blueprint * chunk + column, mask=column < chunk, other=0.0)[None, :]
        a = tl.load(alpha + seed)
        how = tl.load(strategy + seed)
        linear = (1.0 - a) * value + a * (value * w)
        out = tl.where(how == 0, linear, tl.where(how == 1, value * w, value + w))
    tl.store(y + offset, out, mask=inside)

    # Masked elements were loaded as 0 and do not count in the sums.
    smallest = tl.min(tl.where(inside, value, float("inf")))
    largest = tl.max(tl.where(inside, value, -float("inf")))
    tl.atomic_add(telemetry + seed, tl.sum(value), sem="relaxed")
    tl.atomic_add(telemetry + seeds + seed, tl.sum(value * value), sem="relaxed")
    tl.atomic_min(telemetry + 2 * seeds + seed, smallest, sem="relaxed")
    tl.atomic_max(telemetry + 3 * seeds + seed, largest, sem="relaxed")
    tl.atomic_add(counts + seed, tl.sum(inside.to(tl.int32)), sem="relaxed")


class ChunkLayer:
    """The chunk kernel as it is published, with its buffers."""

    def __init__(self, inputs: list[torch.Tensor], state: State):
        seeds = state.lifecycle.numel()
        self.inputs, self.state = inputs, state
        self.outputs = [torch.full_like(x, float("nan")) for x in inputs]
        self.sums = torch.full((2, seeds), float("nan"), device="cuda")
        self.counts = torch.full((seeds,), float("nan"), device="cuda")

    def candidate(self, name: str) -> Candidate:
        return Candidate(name, self.run)

    def run(self, i: int):
        x, y = self.inputs[i % len(self.inputs)], self.outputs[i % len(self.inputs)]
        batch, hidden = x.shape
        chunk = self.state.weights.shape[1]
        seeds = hidden // chunk
        # The reset is part of the forward pass: the kernel accumulates.
        self.sums.zero_()
        self.counts.zero_()
        chunk_kernel[(batch * seeds,)](
            x, y, *fields(self.state), self.sums, self.counts, seeds, chunk, BLOCK=256
        )
        return y, self.sums, self.counts


@triton.jit
def chunk_kernel(
    x,
    y,
    lifecycle,
    strategy,
    blueprint_id,
    alpha,
    weights,
    sums,
    counts,
    seeds,
    chunk,
    BLOCK: tl.constexpr,
):
    program = tl.program_id(0)
    row, seed = program // seeds, program % seeds
    first = (row.to(tl.int64) * seeds + seed) * chunk
    state = tl.load(lifecycle + seed)
    blueprint = tl.load(blueprint_id + seed)
    how = tl.load(strategy + seed)
    total, squares, count = 0.0, 0.0, 0
    for start in range(0, chunk, BLOCK):
        column = start + tl.arange(0, BLOCK)
        inside = column < chunk
        value = tl.load(x + first + column, mask=inside, other=0.0)
        out = value
        if (state >= 3) & (state <= 7):
            w = tl.load(weights + blueprint * chunk + column, mask=inside, other=0.0)
            if how == 0:
                a = tl.load(alpha + seed)
                out = (1.0 - a) * value + a * (value * w)
            elif how == 1:
                out = value * w
            else:
                out = value + w
        tl.store(y + first + column, out, mask=inside)
        total += tl.sum(value)
        squares += tl.sum(value * value)
        count += tl.sum(inside.to(tl.int32))
    tl.atomic_add(sums + seed, total)
    tl.atomic_add(sums + seeds + seed, squares)
    tl.atomic_add(counts + seed, count.to(tl.float32))


def largest_error(result: tuple[torch.Tensor, ...], x: torch.Tensor, state: State) -> float:
    """Against float64, seed by seed from the formulas, for seeds of each kind from first to last."""
    y, telemetry, *counts = result
    chunk = state.weights.shape[1]
    seeds = state.lifecycle.numel()
    spread = {k * (seeds - 1) // (CHECKED_SEEDS - 1) for k in range(CHECKED_SEEDS)}
    # The first nine have each strategy and its identity neighbours.
    checked = sorted(spread | set(range(9)))
    errors = []
    for seed in checked:
        columns = slice(seed * chunk, (seed + 1) * chunk)
        value = x[:, columns].double()
        expected = expected_output(value, state, seed)
        scale = expected.square().mean().sqrt().item()
        errors.append(relative_error(y[:, columns], expected, scale))

        magnitude = value.abs().sum().item()
        wanted = [
            (value.sum(), magnitude),
            (value.square().sum(), 0.0),
            (value.min(), 0.0),
            (value.max(), 0.0),
        ]
        for statistic, (want, scale) in enumerate(wanted[: len(telemetry)]):
            errors.append(relative_error(telemetry[statistic, seed], want, scale))
        for count in counts:
            errors.append(abs(count[seed].item() / value.numel() - 1))
    return max(errors)


def expected_output(value: torch.Tensor, state: State, seed: int) -> torch.Tensor:
    """The float64 output of one seed."""
    if not GRAFTING <= state.lifecycle[seed].item() <= FOSSILIZED:
        return value
    w = state.weights[state.blueprint_id[seed].item()].double()
    a = state.alpha[seed].double()
    strategy = state.strategy[seed].item()
    if strategy == LINEAR:
        return (1 - a) * value + a * value * w
    return value * w if strategy == MULTIPLICATIVE else value + w
