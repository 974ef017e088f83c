"""Weights for a reference model, and how far from it a network may be."""

from typing import Any

BOUND = 1e-4  # of the largest number in an embedding


def draw(model: Any, seed: int) -> None:
    """Weights and statistics, none of them neutral, at a scale that keeps numbers finite."""
    import torch

    numbers = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn(tensor.shape, generator=numbers)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + noise.abs())
            elif name.endswith("weight") and tensor.ndim > 1:
                tensor.copy_(noise * (2 / tensor[0].numel()) ** 0.5)
            elif name.endswith("weight"):
                tensor.copy_(1 + 0.3 * noise)
            else:  # biases, running means, layer scales, tokens, positions
                tensor.copy_(0.3 * noise)
