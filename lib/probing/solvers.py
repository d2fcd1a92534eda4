"""Probes without steps to tune: ridge regression with exact leave-one-out, L-BFGS, and proximal gradients for L1.

All work in float64: features (n, d), labels (n,) of k classes, all examples at once, or for ridge also in turn. The
objective is the L of `lib.probing.stacked_probes`, except that ridge minimises |Y - X W' - b|^2 / (2n) + l2/2 |W|^2 on
one-hot labels Y. Where features outnumber examples, ridge and L-BFGS work with n numbers per class (the solution lies in the
span of the examples).
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.probing.stacked_probes import Linear

RANK_TOLERANCE = 1e-10  # eigenvalues of a Gram matrix below this share of the largest are none
FLAT = 1e-4  # largest entry of the gradient where L-BFGS counts as converged
GRAM_COPIES = 3  # of a Gram matrix that `streamed_ridge` holds
CHECKED = 20  # iterations of proximal gradients between two looks at the optimality conditions


@dataclass(frozen=True)
class Ridge:
    """Ridge probes, one per penalty, and their exact leave-one-out predictions (penalties, n)."""

    linear: Linear
    left_out: Tensor


def ridge(features: Tensor, labels: Tensor, classes: int, penalties: list[float]) -> Ridge:
    """All penalties from one eigendecomposition of the smaller Gram matrix.

    The leave-one-out residual of example i is e_i / (1 - h_ii), h the hat matrix, centring included. That is the residual of
    the fit without i at the same weight n l2 of |W|^2 / 2 beside the summed squares / 2: n stays that of all examples, where
    `ridge` on the other n - 1 would take (n - 1) l2.
    """
    n = len(features)
    targets = F.one_hot(labels, classes).double()
    mean, centre = features.double().mean(0), targets.mean(0)
    x, y = features.double() - mean, targets - centre
    left, lengths, right = _thin_svd(x)
    projected = left.T @ y
    weights, biases, left_out = [], [], []
    for penalty in penalties:
        shrink = lengths.square() / (lengths.square() + n * penalty)
        solution = (right * (shrink / lengths)) @ projected
        hat = 1 / n + (left.square() * shrink).sum(1)
        residual = (y - (left * shrink) @ projected) / (1 - hat).clamp_min(1e-12)[:, None]
        weights.append(solution.T)
        biases.append(centre - mean @ solution)
        left_out.append((targets - residual).argmax(1))
    return Ridge(Linear(torch.stack(weights), torch.stack(biases)), torch.stack(left_out))


class GramRidge:
    """Ridge from examples that come in batches, by their Gram matrix (d, d); the order of batches does not matter."""

    def __init__(self, classes: int) -> None:
        self.classes, self.count = classes, 0
        self.total, self.products, self.targets, self.cross = (torch.zeros((), dtype=torch.float64) for _ in range(4))

    def add(self, features: Tensor, labels: Tensor) -> None:
        """Takes in features (b, d) and labels (b,)."""
        x, y = features.double(), F.one_hot(labels, self.classes).double()
        self.count += len(x)
        self.total, self.targets = self.total + x.sum(0), self.targets + y.sum(0)
        self.products, self.cross = self.products + x.T @ x, self.cross + x.T @ y

    def solve(self, penalties: list[float]) -> "SolvedGramRidge":
        """All penalties from one eigendecomposition."""
        n = self.count
        mean, centre = self.total / n, self.targets / n
        values, right = torch.linalg.eigh(self.products - n * torch.outer(mean, mean))
        squares = torch.where(values > RANK_TOLERANCE * values[-1].clamp_min(1e-300), values, 0.0)
        projected = right.T @ (self.cross - n * torch.outer(mean, centre))
        projected[squares == 0] = 0
        solutions = [right @ (projected / (squares + n * penalty)[:, None]) for penalty in penalties]
        return SolvedGramRidge(n, mean, centre, right, squares, penalties, solutions)


@dataclass(frozen=True)
class SolvedGramRidge:
    """Ridge probes from a Gram matrix: its eigenvectors `right` (d, d) and eigenvalues `squares` (d,), 0 for none.

    mean (d,) of the n examples, centre (k,) of their one-hot labels; a solution (d, k) per penalty.
    """

    n: int
    mean: Tensor
    centre: Tensor
    right: Tensor
    squares: Tensor
    penalties: list[float]
    solutions: list[Tensor]

    @property
    def linear(self) -> Linear:
        """The probes, one per penalty."""
        return Linear(
            torch.stack([solution.T for solution in self.solutions]),
            torch.stack([self.centre - self.mean @ solution for solution in self.solutions]),
        )

    def left_out(self, features: Tensor, labels: Tensor) -> Tensor:
        """The exact leave-one-out predictions (penalties, b) of examples that were taken in."""
        n, x, y = self.n, features.double() - self.mean, F.one_hot(labels, len(self.centre)).double()
        squares, predictions = (x @ self.right).square(), []
        for penalty, solution in zip(self.penalties, self.solutions, strict=True):
            inverse = torch.where(self.squares > 0, 1 / (self.squares + n * penalty), 0.0)
            hat = 1 / n + squares @ inverse
            residual = (y - self.centre - x @ solution) / (1 - hat).clamp_min(1e-12)[:, None]
            predictions.append((y - residual).argmax(1))
        return torch.stack(predictions)


def streamed_ridge(parts: Callable[[], Iterable[Tensor]], labels: Tensor, classes: int, penalties: list[float]) -> Ridge:
    """`ridge` where `parts()` gives the features (b, d) in turn; it is asked twice, for the Gram matrix and to leave out."""
    gram, begin = GramRidge(classes), 0
    for part in parts():
        gram.add(part, labels[begin : begin + len(part)])
        begin += len(part)
    solved = gram.solve(penalties)
    del gram
    left_out, begin = [], 0
    for part in parts():
        left_out.append(solved.left_out(part, labels[begin : begin + len(part)]))
        begin += len(part)
    return Ridge(solved.linear, torch.cat(left_out, 1))


def lbfgs(
    features: Tensor, labels: Tensor, classes: int, penalties: list[float], iterations: int = 200, dual: bool | None = None
) -> Linear:
    """Logistic regression with squared L2 penalties, one probe per penalty, each started at the one before.

    dual    solve in the span of the examples; by default where features outnumber them
    """
    x = features.double()
    directions = None  # (d, r) in which the solution lies; None: in all
    if x.shape[1] > len(x) if dual is None else dual:
        left, lengths, directions = _thin_svd(x)
        x = left * lengths
    weights = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device)
    biases = torch.zeros(classes, dtype=torch.float64, device=x.device)
    solved = {}
    for penalty in sorted(set(penalties), reverse=True):
        weights, biases = _minimise(x, labels, weights, biases, penalty, iterations)
        solved[penalty] = (weights if directions is None else weights @ directions.T, biases)
    return Linear(
        torch.stack([solved[penalty][0] for penalty in penalties]),
        torch.stack([solved[penalty][1] for penalty in penalties]),
    )


def proximal(
    features: Tensor,
    labels: Tensor,
    classes: int,
    penalties: list[tuple[float, float]],
    iterations: int = 2000,
    tolerance: float = 1e-7,
    free_biases: bool = True,
) -> Linear:
    """Logistic regression with penalties (l1, l2), one probe each: accelerated proximal gradients, exact zeros.

    Biases are penalised as weights are unless they are free.

    Beck & Teboulle 2009 with restarts; the step is one over a bound of the curvature. A probe is done when no entry
    violates the optimality conditions by more than `tolerance`; a warning says if some were not after `iterations`.
    """
    x = features.double()
    n, d = x.shape
    ones = torch.cat([x, x.new_ones(n, 1)], 1)
    curvature = 0.5 * torch.linalg.eigvalsh(ones @ ones.T if d >= n else ones.T @ ones)[-1] / n
    l1 = x.new_tensor([first for first, _ in penalties]).view(-1, 1, 1)
    l2 = x.new_tensor([second for _, second in penalties]).view(-1, 1, 1)
    step = 1 / (curvature + l2)
    mask = x.new_ones(d + 1)
    mask[-1] = 0 if free_biases else 1
    value = x.new_zeros(len(penalties), classes, d + 1)
    ahead, momentum = value, torch.ones_like(l1)
    for iteration in range(1, iterations + 1):
        new = _soft(ahead - step * _slope(ones, labels, ahead, l2, mask), step * l1 * mask)
        restart = ((ahead - new) * (new - value)).sum((1, 2), keepdim=True) > 0
        grown = torch.where(restart, 1.0, (1 + (1 + 4 * momentum.square()).sqrt()) / 2)
        ahead = torch.where(restart, new, new + (momentum - 1) / grown * (new - value))
        value, momentum = new, grown
        if iteration % CHECKED == 0 and float(violation(ones, labels, value, l1, l2, mask).max()) <= tolerance:
            break
    worst = float(violation(ones, labels, value, l1, l2, mask).max())
    if worst > 10 * tolerance:
        warnings.warn(
            f"--solver prox: {iterations} iterations leave the optimality conditions violated by {worst:.1e}; "
            "more -e come nearer",
            stacklevel=2,
        )
    return Linear(value[..., :-1].contiguous(), value[..., -1].contiguous())


def violation(x: Tensor, labels: Tensor, value: Tensor, l1: Tensor, l2: Tensor, mask: Tensor) -> Tensor:
    """By how much each entry misses the optimality conditions: |slope| <= l1 at zeros, slope = -l1 sign(w) elsewhere."""
    slope, bound = _slope(x, labels, value, l2, mask), l1 * mask
    return torch.where(value == 0, (slope.abs() - bound).clamp_min(0), (slope + bound * value.sign()).abs())


def _slope(x: Tensor, labels: Tensor, value: Tensor, l2: Tensor, mask: Tensor) -> Tensor:
    """The gradient (p, k, d) of mean cross-entropy plus l2/2 |W|^2 at probes `value` (p, k, d), the last column the biases.

    (softmax(X V') - Y)' X / n + l2 V times the mask, which is 0 for biases. Compared with automatic differentiation in
    `test_the_slope_of_proximal_gradients_is_that_of_the_stated_loss`.
    """
    p, k, d = value.shape
    error = (x @ value.view(p * k, d).T).view(len(x), p, k).softmax(2)
    error[torch.arange(len(x), device=x.device), :, labels] -= 1
    return (error.view(len(x), p * k).T @ x).view(p, k, d) / len(x) + l2 * value * mask


def _soft(value: Tensor, threshold: Tensor) -> Tensor:
    return value.sign() * (value.abs() - threshold).clamp_min(0)


def _minimise(
    x: Tensor, labels: Tensor, weights: Tensor, biases: Tensor, penalty: float, iterations: int
) -> tuple[Tensor, Tensor]:
    """Weights (k, d) and biases (k,) that minimise mean cross-entropy plus penalty/2 |W|^2, started at those given."""
    weights, biases = weights.clone().requires_grad_(), biases.clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weights, biases],
        max_iter=iterations,
        max_eval=2 * iterations,
        history_size=20,
        tolerance_grad=1e-9,
        tolerance_change=1e-14,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x @ weights.T + biases, labels) + penalty / 2 * weights.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        loss()
    steepest = max(float(slope.abs().max()) for slope in (weights.grad, biases.grad) if slope is not None)
    if steepest > FLAT:
        warnings.warn(
            f"--solver lbfgs: {iterations} iterations leave a gradient of {steepest:.1e}; more -e come nearer", stacklevel=2
        )
    return weights.detach(), biases.detach()


def _thin_svd(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(U (n, r), lengths (r,), V (d, r)) from the smaller Gram matrix, without directions of no length."""
    wide = x.shape[1] > x.shape[0]
    values, vectors = torch.linalg.eigh(x @ x.T if wide else x.T @ x)
    keep = values > RANK_TOLERANCE * values[-1].clamp_min(1e-300)
    lengths, vectors = values[keep].sqrt(), vectors[:, keep]
    if wide:
        return vectors, lengths, (x.T @ vectors) / lengths
    return (x @ vectors) / lengths, lengths, vectors
