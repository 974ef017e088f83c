"""One network three times: fewshot's `simplecnn`, plain MLX, PyTorch; the same weights in each.

3-32-64-128-128 channels, 3x3, ReLU then batch norm then 2x2 max pool, the last block without the
pool, one linear layer to 336 numbers: 2,994,384 parameters at 64x64.
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE, CHANNELS, EMBEDDING = 64, (32, 64, 128, 128), 336
MEAN, STD = 0.5, 0.25  # of the normalisation

Float = NDArray[np.float32]


def shared_weights() -> tuple[list[Float], Float]:
    """Convolutions (out, 3, 3, in) and the linear layer (out, h · w · c); all biases are 0."""
    rng = np.random.default_rng(0)

    def uniform(shape: tuple[int, ...]) -> Float:
        bound = 1 / np.sqrt(np.prod(shape[1:]))
        return rng.uniform(-bound, bound, shape).astype(np.float32)

    ends = (3, *CHANNELS)
    convolutions = [uniform((o, 3, 3, i)) for i, o in pairwise(ends)]
    return convolutions, uniform((EMBEDDING, (SIZE // 8) ** 2 * CHANNELS[-1]))


def in_fewshot() -> Any:
    """An embedder of fewshot's own network."""
    import fewshot as fs

    runtime = fs.prepare()
    from fewshot_asl.simplecnn import SimpleCNNOptions, simplecnn

    options = SimpleCNNOptions(channels=CHANNELS, embedding=EMBEDDING)
    backbone = simplecnn(options, (SIZE, SIZE, 3))
    _load_mlx(backbone)
    return fs.Embedder(backbone), runtime


def in_mlx() -> Any:
    """The network as a user of plain MLX writes it."""
    import mlx.nn as nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            ends = (3, *CHANNELS)
            self.convolutions = [nn.Conv2d(i, o, 3, padding=1) for i, o in pairwise(ends)]
            self.norms = [nn.BatchNorm(channels) for channels in CHANNELS]
            self.pool = nn.MaxPool2d(2)
            self.linear = nn.Linear((SIZE // 8) ** 2 * CHANNELS[-1], EMBEDDING)

        def __call__(self, x: Any) -> Any:
            last = len(CHANNELS) - 1
            for i, (convolution, norm) in enumerate(
                zip(self.convolutions, self.norms, strict=True)
            ):
                x = norm(nn.relu(convolution(x)))
                if i < last:
                    x = self.pool(x)
            return self.linear(x.flatten(1))

    network = Network()
    _load_mlx(network)
    return network


def _load_mlx(network: Any) -> None:
    import mlx.core as mx
    from mlx.utils import tree_map_with_path

    convolutions, linear = shared_weights()
    waiting = iter(convolutions)

    def value(name: str, old: Any) -> Any:
        if old.ndim == 4:
            return mx.array(next(waiting))
        if old.ndim == 2:
            return mx.array(linear)
        return mx.zeros_like(old) if name.endswith("bias") else old

    network.update(tree_map_with_path(value, network.parameters()))
    mx.eval(network.parameters())


def in_torch(channels_last: bool) -> Any:
    """The network as a user of PyTorch writes it, in either memory format."""
    import torch
    from torch import nn

    layers: list[nn.Module] = []
    inputs = 3
    for i, channels in enumerate(CHANNELS):
        layers += [nn.Conv2d(inputs, channels, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(channels)]
        if i < len(CHANNELS) - 1:
            layers.append(nn.MaxPool2d(2))
        inputs = channels
    edge = SIZE // 8
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(edge**2 * inputs, EMBEDDING))
    convolutions, linear = shared_weights()
    waiting = iter(convolutions)
    with torch.no_grad():
        for layer in network:
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(torch.from_numpy(next(waiting).transpose(0, 3, 1, 2).copy()))
                layer.bias.zero_()
            elif isinstance(layer, nn.Linear):
                # PyTorch flattens channels first.
                by_pixel = linear.reshape(EMBEDDING, edge, edge, inputs).transpose(0, 3, 1, 2)
                layer.weight.copy_(torch.from_numpy(by_pixel.reshape(EMBEDDING, -1)))
                layer.bias.zero_()
    return network.to(memory_format=torch.channels_last) if channels_last else network


def in_torch_to_embed(channels_last: bool, compiled: bool) -> tuple[Any, dict[str, Any]]:
    """The network in eval mode, malloc as `fewshot.prepare` has it for us, and its facts.

    Compiled, where that works here, else as it is: facts say which.
    """
    import torch

    from fewshot.compute.runtime import _tune_malloc

    _tune_malloc()
    model = in_torch(channels_last).eval()
    facts = {**torch_facts(), "compiled": False}
    if compiled:
        try:
            made = torch.compile(model)
            with torch.inference_mode():
                made(torch.zeros(1, 3, SIZE, SIZE))
        except Exception as error:  # it needs a compiler and more
            print(f"torch.compile: {error!r}")
        else:
            return made, {**facts, "compiled": True}
    return model, facts


def torch_batch(images: NDArray[np.uint8], channels_last: bool) -> Any:
    """uint8 images (b, h, w, c) as PyTorch wants them, normalised."""
    import torch

    batch = torch.from_numpy(images).permute(0, 3, 1, 2)  # channels last in memory as it comes
    if not channels_last:
        batch = batch.contiguous()
    return batch.float().div_(255).sub_(MEAN).div_(STD)


def mlx_batch(images: NDArray[np.uint8]) -> Any:
    """The same for plain MLX."""
    import mlx.core as mx

    return (mx.array(images).astype(mx.float32) / 255 - MEAN) / STD


def torch_facts() -> dict[str, Any]:
    import torch

    return {"peer": f"PyTorch {torch.__version__}", "threads": torch.get_num_threads()}


def mlx_parameters(module: Any) -> int:
    from mlx.utils import tree_flatten

    return sum(array.size for _, array in tree_flatten(module.trainable_parameters()))
