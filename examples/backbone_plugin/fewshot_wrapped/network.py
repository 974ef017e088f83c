"""The network that one has: any `mlx.nn.Module`, here a classifier of ten classes."""

import mlx.core as mx
import mlx.nn as nn


class Network(nn.Module):
    """(b, h, w, 3) -> (b, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 16, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.classify = nn.Linear(32, 10)

    def __call__(self, images: mx.array) -> mx.array:
        return self.classify(self.features(images).mean(axis=(1, 2)))
