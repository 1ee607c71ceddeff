"""Free energy and one belief step of a linear Gaussian model in f64, by PyTorch eager and compiled.

r = o − b − J·μ; complexity, plug-in and expected accuracy; μ + κ·(Jᵀ(π·r) − (μ − m0)/v0). Bytes are those of the
floor: J once, and the vectors. Both read J three times at least: for J·μ, for J²·s and for Jᵀ(π·r).
"""

from dataclasses import dataclass
from typing import Any, Iterator

import torch

from harness import Candidate, Operation, buffer_sets, measure, relative_error, release_memory

SHAPES = [(64, 64), (1024, 1024), (4096, 4096), (4096, 16384)]
TWO_PI = 6.283185307179586
KAPPA = 0.05
# Peers are checked for doing the same thing, not for their last digits.
TOLERANCE = 1e-9


@dataclass(frozen=True)
class Model:
    jacobian: torch.Tensor
    target: torch.Tensor
    precision: torch.Tensor
    prior_mean: torch.Tensor
    prior_var: torch.Tensor
    variance: torch.Tensor
    mean: torch.Tensor

    @staticmethod
    def random(m: int, n: int) -> "Model":
        def draw(*size: int) -> torch.Tensor:
            return torch.rand(*size, device="cuda", dtype=torch.float64)

        return Model(
            jacobian=(draw(m, n) - 0.5) * 2 / (m + n) ** 0.5,
            target=draw(m),
            precision=0.5 + draw(m),
            prior_mean=draw(n),
            prior_var=0.5 + draw(n),
            variance=0.1 + draw(n),
            mean=draw(n),
        )

    def tensors(self) -> tuple[torch.Tensor, ...]:
        return (
            self.jacobian,
            self.target,
            self.precision,
            self.prior_mean,
            self.prior_var,
            self.variance,
            self.mean,
        )


def step(jacobian, target, precision, prior_mean, prior_var, variance, mean):
    """The new mean, and both free energies before it."""
    residual = target - jacobian @ mean
    weighted = precision * residual
    distance = mean - prior_mean
    moved = mean + KAPPA * (jacobian.T @ weighted - distance / prior_var)
    ratio = variance.clamp(min=1e-10) / prior_var
    complexity = 0.5 * (ratio + distance.square() / prior_var - 1 - ratio.log()).sum()
    plugin = -0.5 * (weighted * residual + (TWO_PI / precision).log()).sum()
    expected = plugin - 0.5 * (precision * (jacobian.square() @ variance)).sum()
    return moved, torch.stack([complexity - plugin, complexity - expected])


def records(copy_rate: float) -> Iterator[dict[str, Any]]:
    """Measures every shape, by events and by graph replay."""
    for shape in SHAPES:
        yield from shape_records(shape, copy_rate)
        release_memory()


def shape_records(shape: tuple[int, int], copy_rate: float) -> list[dict[str, Any]]:
    m, n = shape
    moved = 8 * (m * n + 2 * m + 5 * n)
    sets = buffer_sets(moved)
    models = [Model.random(m, n) for _ in range(sets)]
    torch.compiler.reset()
    compiled = torch.compile(step, dynamic=False)

    def error_of(result: tuple[torch.Tensor, torch.Tensor]) -> float:
        expected = by_rows(models[0])
        scale = expected[1].abs().max().item()
        return max(
            relative_error(result[0], expected[0], 1.0), relative_error(result[1], expected[1], scale)
        )

    operation = Operation(
        name="belief_step",
        shape=shape,
        bytes_moved=moved,
        buffer_sets=sets,
        error_of=error_of,
        tolerance=TOLERANCE,
        dtype="f64",
    )
    candidates = [
        Candidate("eager", lambda i: step(*models[i % sets].tensors())),
        Candidate("compile", lambda i: compiled(*models[i % sets].tensors())),
    ]
    with torch.no_grad():
        return measure(operation, candidates, copy_rate, graph=True)


def by_rows(model: Model) -> tuple[torch.Tensor, torch.Tensor]:
    """The same from sums of products, without a matrix product."""
    products = (model.jacobian * model.mean).sum(1)
    residual = model.target - products
    weighted = model.precision * residual
    gradient = (model.jacobian * weighted[:, None]).sum(0)
    distance = model.mean - model.prior_mean
    moved = model.mean + KAPPA * (gradient - distance / model.prior_var)
    ratio = model.variance / model.prior_var
    complexity = 0.5 * (ratio + distance**2 / model.prior_var - 1 - ratio.log()).sum()
    plugin = -0.5 * (weighted * residual + (TWO_PI / model.precision).log()).sum()
    spread = (model.jacobian**2 * model.variance).sum(1)
    expected = plugin - 0.5 * (model.precision * spread).sum()
    return moved, torch.stack([complexity - plugin, complexity - expected])
