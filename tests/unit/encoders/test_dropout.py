"""Dropout against what it promises: the share, the scale, and nothing outside training."""

import pytest
import torch
from torch import nn

from xcflow.encoders.dropout import Dropout


@pytest.mark.parametrize("p", [0.1, 0.2, 0.5, 0.9])
def test_a_share_of_p_is_dropped_and_the_rest_scaled_up(p: float):
    torch.manual_seed(1)
    values = torch.full((1000, 100), 3.0, requires_grad=True)
    dropped = Dropout(p).train()(values)
    assert abs(float((dropped == 0).float().mean()) - p) < 0.01
    torch.testing.assert_close(dropped[dropped > 0].unique(), torch.tensor([3.0 / (1.0 - p)]))
    dropped.sum().backward()
    torch.testing.assert_close(values.grad, dropped.detach() / 3.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_type_stays(dtype: torch.dtype):
    assert Dropout(0.2).train()(torch.ones(4, 4, dtype=dtype)).dtype == dtype


def test_the_same_seed_drops_the_same():
    layer, values = Dropout(0.5).train(), torch.randn(20, 20)
    torch.manual_seed(3)
    first = layer(values)
    torch.manual_seed(3)
    assert torch.equal(layer(values), first)


def test_outside_training_and_at_zero_all_stays():
    values = torch.randn(5, 5)
    assert torch.equal(Dropout(0.5).eval()(values), values)
    assert torch.equal(Dropout(0.0).train()(values), values)
    assert isinstance(Dropout(0.5), nn.Dropout)
