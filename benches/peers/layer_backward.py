"""The layer's training step, f32, through autograd: forward, and forward with backward, eager and compiled.

A third of the seeds graft, with RESIDUAL, ATTENTION and MLP blueprints in turn and a random α in (0, 1); the others
are dormant and the identity. For an active seed y = (1−α)·x + α·T(x), with T = x + s·w, x·softmax(w) and
s·relu(x·w). The backward pass gives the gradients of x, of the blueprints' weights and scales, and of α. There is no
telemetry in it.

`layer_forward_autograd` is the forward pass alone, where nothing is kept for a backward pass; `layer_step` is both.
"""

import time
from dataclasses import dataclass
from typing import Any, Callable, Iterator

import torch

from harness import Candidate, Operation, buffer_sets, measure, relative_error, release_memory

SHAPES = [
    (32, 1000, 64),
    (4096, 1000, 64),
    (4096, 16, 4096),
    (8192, 64, 1024),
]
# Blueprint 0 stands for none. Three of each type are used.
BLUEPRINTS = 10
GRAFTING, FOSSILIZED = 3, 7
RESIDUAL, ATTENTION, MLP = 0, 1, 2
TOLERANCE = 1e-5
# Gradients that are sums over the batch: of terms of either sign, relative to what such sums are large as.
SUM_TOLERANCE = 1e-4
# Compilations with a longer search are made as long as this is not used up; the others always.
SEARCH_BUDGET_S = 60.0

Tensors = tuple[torch.Tensor, ...]


@dataclass(frozen=True)
class State:
    """`lifecycle`, `blueprint_id` and `alpha` for each seed; `kind` and `scales` for each blueprint, and the
    weights `[BLUEPRINTS, chunk]`."""

    lifecycle: torch.Tensor
    blueprint_id: torch.Tensor
    kind: torch.Tensor
    alpha: torch.Tensor
    scales: torch.Tensor
    weights: torch.Tensor

    @staticmethod
    def random(seeds: int, chunk: int, device: str) -> "State":
        """Every third seed grafts one of the blueprints, in turn."""
        seed = torch.arange(seeds, device=device)
        return State(
            lifecycle=torch.where(seed % 3 == 0, GRAFTING, 0),
            blueprint_id=1 + (seed // 3) % (BLUEPRINTS - 1),
            kind=(torch.arange(BLUEPRINTS, device=device) - 1) % 3,
            alpha=torch.rand(seeds, device=device).clamp(0.01, 0.99).requires_grad_(),
            scales=(0.5 + torch.rand(BLUEPRINTS, device=device)).requires_grad_(),
            weights=torch.randn(BLUEPRINTS, chunk, device=device).requires_grad_(),
        )

    def fields(self) -> Tensors:
        return (
            self.lifecycle, self.blueprint_id, self.kind, self.alpha, self.scales, self.weights
        )


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures every shape, by events and by graph replay."""
    started = time.monotonic()
    for shape in SHAPES:
        searches = time.monotonic() - started < SEARCH_BUDGET_S
        yield from shape_records(shape, copy_rate, "cuda", searches)
        release_memory()


def shape_records(
    shape: tuple[int, int, int], copy_rate: float, device: str, searches: bool
) -> Iterator[dict[str, Any]]:
    """Forward alone, then forward and backward."""
    batch, seeds, chunk = shape
    tensor_bytes = 4 * batch * seeds * chunk
    state = State.random(seeds, chunk, device)
    # A step uses x, g and what it makes of them.
    sets = buffer_sets(3 * tensor_bytes)
    inputs = [torch.randn(batch, seeds * chunk, device=device) for _ in range(sets)]
    gradients = [torch.randn(batch, seeds * chunk, device=device) for _ in range(sets)]

    # Each shape is compiled for itself, as a training run of one shape would be.
    torch.compiler.reset()
    layers = {
        "eager": layer,
        "compile": torch.compile(layer, dynamic=False),
        "compile_folded": torch.compile(folded_layer, dynamic=False),
    }
    if searches:
        mode = "max-autotune-no-cudagraphs"
        layers["compile_search"] = torch.compile(folded_layer, dynamic=False, mode=mode)
    # Where calls take long, launches no longer count, and eager replays take minutes.
    graphs = {name: name != "eager" or tensor_bytes < 1 << 28 for name in layers}

    forward = Operation(
        name="layer_forward_autograd",
        shape=shape,
        bytes_moved=2 * tensor_bytes,
        buffer_sets=sets,
        error_of=lambda y: output_error(y, inputs[0], state),
        tolerance=TOLERANCE,
    )
    candidates = [
        Candidate(name, forward_of(run, inputs, state), graphs[name]) for name, run in layers.items()
    ]
    yield from measure(forward, candidates, copy_rate, graph=True)

    for x in inputs:
        x.requires_grad_()
    step = Operation(
        name="layer_step",
        shape=shape,
        # x and y; then g, x and ∂x.
        bytes_moved=5 * tensor_bytes,
        buffer_sets=sets,
        error_of=lambda results: step_error(results, inputs[0], gradients[0], state),
        tolerance=TOLERANCE,
    )
    candidates = [
        Candidate(name, step_of(run, inputs, gradients, state), graphs[name])
        for name, run in layers.items()
    ]
    yield from measure(step, candidates, copy_rate, graph=True)


def forward_of(run: Callable, inputs: list[torch.Tensor], state: State) -> Callable[[int], Any]:
    @torch.no_grad()
    def forward(i: int) -> torch.Tensor:
        return run(inputs[i % len(inputs)], *state.fields())

    return forward


def step_of(
    run: Callable, inputs: list[torch.Tensor], gradients: list[torch.Tensor], state: State
) -> Callable[[int], Any]:
    def step(i: int) -> Tensors:
        x, g = inputs[i % len(inputs)], gradients[i % len(inputs)]
        y = run(x, *state.fields())
        wanted = (x, state.weights, state.scales, state.alpha)
        return y.detach(), *torch.autograd.grad(y, wanted, g)

    return step


def layer(x, lifecycle, blueprint_id, kind, alpha, scales, weights):
    """The output of all seeds at once, as the formulas stand."""
    chunks = x.view(x.shape[0], lifecycle.shape[0], weights.shape[1])
    active = ((lifecycle >= GRAFTING) & (lifecycle <= FOSSILIZED))[:, None]
    a, w = alpha.clamp(0, 1)[:, None], weights[blueprint_id]
    s, of_kind = scales[blueprint_id][:, None], kind[blueprint_id][:, None]
    transformed = torch.where(
        of_kind == RESIDUAL,
        chunks + s * w,
        torch.where(of_kind == ATTENTION, chunks * w.softmax(1), s * torch.relu(chunks * w)),
    )
    return torch.where(active, (1 - a) * chunks + a * transformed, chunks).view_as(x)


def folded_layer(x, lifecycle, blueprint_id, kind, alpha, scales, weights):
    """The same with all that does not depend on x worked out once for each column: slope·x + offset + lift·relu(x·w).

    The pass over the input then reads four small arrays and chooses nothing, and so does that of the gradients.
    """
    chunks = x.view(x.shape[0], lifecycle.shape[0], weights.shape[1])
    active = ((lifecycle >= GRAFTING) & (lifecycle <= FOSSILIZED))[:, None]
    a, w = alpha.clamp(0, 1)[:, None], weights[blueprint_id]
    s, of_kind = scales[blueprint_id][:, None], kind[blueprint_id][:, None]
    kept = torch.where(
        of_kind == RESIDUAL,
        torch.ones_like(w),
        torch.where(of_kind == ATTENTION, (1 - a) + a * w.softmax(1), (1 - a).expand_as(w)),
    )
    slope = torch.where(active, kept, 1.0)
    offset = torch.where(active & (of_kind == RESIDUAL), a * s * w, 0.0)
    lift = torch.where(active & (of_kind == MLP), a * s, 0.0)
    return (slope * chunks + offset + lift * torch.relu(chunks * w)).view_as(x)


def output_error(y: torch.Tensor, x: torch.Tensor, state: State) -> float:
    """Of the output against float64; infinite where an identity is not exact."""
    errors = []
    for seed, columns in columns_of_seeds(state):
        value = x[:, columns].detach()
        if not is_active(state, seed):
            errors.append(0.0 if torch.equal(y[:, columns], value) else float("inf"))
            continue
        expected = expected_step(value.double(), torch.zeros_like(value).double(), state, seed)[0]
        errors.append(relative_error(y[:, columns], expected, root_mean_square(expected)))
    return max(errors)


def step_error(results: Tensors, x: torch.Tensor, g: torch.Tensor, state: State) -> float:
    """Of the output and all gradients against float64, from the formulas of each, all seeds of each blueprint."""
    y, grad_x, *grad_sums = results
    expected_sums = [torch.zeros_like(grad).double() for grad in grad_sums]
    grad_weights, grad_scales, grad_alpha = expected_sums
    errors = [output_error(y, x, state)]
    for seed, columns in columns_of_seeds(state):
        if not is_active(state, seed):
            errors.append(0.0 if torch.equal(grad_x[:, columns], g[:, columns]) else float("inf"))
            continue
        value, gradient = x[:, columns].detach().double(), g[:, columns].double()
        _, grad_value, grad_w, grad_s, grad_a = expected_step(value, gradient, state, seed)
        scale = root_mean_square(grad_value)
        errors.append(relative_error(grad_x[:, columns], grad_value, scale))
        blueprint = state.blueprint_id[seed].item()
        grad_weights[blueprint] += grad_w
        grad_scales[blueprint] += grad_s
        grad_alpha[seed] = grad_a
    for got, expected in zip(grad_sums, expected_sums):
        unused = expected == 0
        if not torch.equal(got[unused], torch.zeros_like(got[unused])):
            return float("inf")
        used = expected[~unused]
        error = relative_error(got[~unused], used, root_mean_square(used))
        # So that one tolerance holds for all.
        errors.append(error * TOLERANCE / SUM_TOLERANCE)
    return max(errors)


def expected_step(x: torch.Tensor, g: torch.Tensor, state: State, seed: int) -> Tensors:
    """y, ∂x, ∂w, ∂s and ∂α of an active seed in float64, written out rather than differentiated."""
    blueprint = state.blueprint_id[seed].item()
    w = state.weights[blueprint].detach().double()
    s, a = state.scales[blueprint].detach().double(), state.alpha[seed].detach().double()
    kind = state.kind[blueprint].item()
    if kind == RESIDUAL:
        transformed, slope = x + s * w, torch.ones_like(x)
        grad_w, grad_s = a * s * g.sum(0), a * (g * w).sum()
    elif kind == ATTENTION:
        p = w.softmax(0)
        transformed, slope = x * p, p.expand_as(x)
        h = a * (g * x).sum(0)
        grad_w, grad_s = p * (h - (p * h).sum()), torch.zeros_like(a)
    else:
        open_gate = (x * w > 0).double()
        transformed, slope = s * open_gate * x * w, s * open_gate * w
        grad_w, grad_s = a * s * (g * x * open_gate).sum(0), a * (g * x * w * open_gate).sum()
    y = (1 - a) * x + a * transformed
    grad_x = g * (1 - a + a * slope)
    return y, grad_x, grad_w, grad_s, (g * (transformed - x)).sum()


def columns_of_seeds(state: State) -> Iterator[tuple[int, slice]]:
    chunk = state.weights.shape[1]
    return ((seed, slice(seed * chunk, (seed + 1) * chunk)) for seed in range(len(state.lifecycle)))


def is_active(state: State, seed: int) -> bool:
    return GRAFTING <= state.lifecycle[seed].item() <= FOSSILIZED


def root_mean_square(values: torch.Tensor) -> float:
    return values.square().mean().sqrt().item()
