"""Adam on the rows of a table against a slow reference, row by row."""

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from xcflow.row_table import RowTable


class SlowAdam:
    """One row: its own clock, and one second moment for all its columns."""

    def __init__(self, weight: list[float], beta1: float, beta2: float, epsilon: float) -> None:
        self.weight = np.array(weight, np.float64)
        self._first = np.zeros_like(self.weight)
        self._second = 0.0
        self._clock = 0
        self._settings = beta1, beta2, epsilon

    def step(self, gradient: np.ndarray, rate: float) -> None:
        beta1, beta2, epsilon = self._settings
        self._clock += 1
        self._first = beta1 * self._first + (1 - beta1) * gradient
        self._second = beta2 * self._second + (1 - beta2) * float(np.mean(gradient**2))
        first = self._first / (1 - beta1**self._clock)
        second = self._second / (1 - beta2**self._clock)
        self.weight -= rate * first / (np.sqrt(second) + epsilon)


def random_table(rows: int, dim: int, **settings: float) -> RowTable:
    return RowTable(torch.randn(rows, dim, generator=torch.Generator().manual_seed(0)), **settings)


def steps(table: RowTable, count: int, seed: int) -> list[tuple[list[int], np.ndarray, float]]:
    """Random steps: which rows, their gradients, the rate."""
    rng = np.random.default_rng(seed)
    rows, dim = table.weight.shape
    made = []
    for _ in range(count):
        chosen = rng.choice(rows, int(rng.integers(1, rows)), replace=False)
        made.append((chosen.tolist(), rng.standard_normal((len(chosen), dim)), float(rng.random())))
    return made


def apply(table: RowTable, rows: list[int], gradient: np.ndarray, rate: float) -> None:
    leaf = table.gather(torch.tensor(rows))
    (leaf * torch.from_numpy(gradient).float()).sum().backward()
    table.step(rate)


@pytest.mark.parametrize(
    "settings", [{}, {"beta1": 0.5, "beta2": 0.8, "epsilon": 0.1}, {"beta1": 0.0}]
)
def test_each_row_follows_adam_with_a_clock_of_its_own(settings: dict[str, float]):
    table = random_table(6, 3, **settings)
    values = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8} | settings
    slow = [SlowAdam(row, **values) for row in table.weight.tolist()]
    for rows, gradient, rate in steps(table, 40, seed=1):
        before = table.weight.clone()
        apply(table, rows, gradient, rate)
        others = [i for i in range(6) if i not in rows]
        assert torch.equal(table.weight[others], before[others])
        for row, g in zip(rows, gradient, strict=True):
            slow[row].step(g, rate)
    expected = np.array([row.weight for row in slow])
    np.testing.assert_allclose(table.weight.numpy(), expected, rtol=2e-4, atol=2e-4)


def test_a_row_that_comes_late_takes_a_full_step():
    table = random_table(2, 4)
    for _ in range(50):
        apply(table, [0], np.ones((1, 4)), 0.01)
    before = table.weight[1].clone()
    apply(table, [1], np.ones((1, 4)), 0.01)
    torch.testing.assert_close(before - table.weight[1], torch.full((4,), 0.01))


def test_a_row_without_gradient_stays():
    table = random_table(3, 2)
    before = table.weight.clone()
    apply(table, [2, 0], np.zeros((2, 2)), 1.0)
    assert torch.equal(table.weight, before)


def test_what_a_checkpoint_keeps_continues_the_same():
    first, second = random_table(6, 3), RowTable(torch.zeros(6, 3))
    before, after = steps(first, 10, seed=1), steps(first, 10, seed=2)
    for step in before:
        apply(first, *step)
    second.restore("table", load(save(first.tensors("table"))))
    for step in after:
        apply(first, *step)
        apply(second, *step)
    for name, tensor in first.tensors("").items():
        assert torch.equal(tensor, second.tensors("")[name])


def test_a_step_needs_a_gradient():
    table = random_table(3, 2)
    with pytest.raises(RuntimeError, match="without gather and backward"):
        table.step(0.1)
    table.gather(torch.tensor([1]))
    with pytest.raises(RuntimeError, match="without gather and backward"):
        table.step(0.1)
    apply(table, [1], np.ones((1, 2)), 0.1)
    with pytest.raises(RuntimeError, match="without gather and backward"):
        table.step(0.1)
