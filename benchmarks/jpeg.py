"""The training step from a folder of JPEGs with all transforms, from the second epoch on."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from . import network
from .images import folder_of_classes, jpeg_folder, random_pairs
from .peers import need
from .settings import Settings
from .sides import (
    Result,
    alternate,
    fastest,
    ratio,
    require_falling,
    require_same,
    seconds,
    sides,
)
from .step import LEAST, RATE, by_fit, rate, torch_step, training
from .worker import Turn

CLASSES = 10
WORKERS = (0, 2)  # of the DataLoader

# ------------------------------------------------------------------------------------- ours


def ours(folder: str, pairs: int) -> tuple[dict[str, Any], Turn]:
    """The first epoch is `decode`, which reads every file once."""
    import fewshot as fs

    embedder, _ = network.in_fewshot()
    data = fs.decode(fs.image_folder(fs.ImageFolderOptions(path=folder, size=network.SIZE)))
    sampler = fs.pairs(fs.PairsOptions(pairs=pairs), data.labels)
    augment = [
        fs.random_resized_crop(fs.CropOptions(min_scale=0.6, max_scale=1.0, stretch=1.2)),
        fs.horizontal_flip(fs.FlipOptions(probability=0.5)),
        fs.colour_jitter(fs.ColourOptions(brightness=0.3, contrast=0.3, saturation=0.3)),
        fs.gaussian_blur(fs.BlurOptions(sigma=1.0, probability=0.5)),
    ]
    facts = {
        "least": LEAST,
        "parameters": network.mlx_parameters(embedder.backbone),
        "images": len(data.labels),
        "batch": [2 * pairs, *data.images.shape[1:]],
    }

    return facts, by_fit(embedder, data, sampler, augment)


# ------------------------------------------------------------------------------------- peer


class PairBatches:
    """A batch sampler: `count` batches of (left, right, same), drawn anew each time."""

    def __init__(self, labels: Any, pairs: int) -> None:
        self.labels, self.pairs, self.count = labels, pairs, 1
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[list[tuple[int, int, bool]]]:
        for _ in range(self.count):
            left, right, same = random_pairs(self.rng, self.labels, self.pairs)
            yield list(zip(left.tolist(), right.tolist(), same.tolist(), strict=True))


class PairsOfFolder:
    """A dataset whose index is a pair of indices into an `ImageFolder`."""

    def __init__(self, folder: Any) -> None:
        self.folder = folder

    def __getitem__(self, pair: tuple[int, int, bool]) -> tuple[Any, Any, bool]:
        left, right, same = pair
        return self.folder[left][0], self.folder[right][0], same


def in_torch(
    folder: str, pairs: int, workers: int, channels_last: bool
) -> tuple[dict[str, Any], Turn]:
    torch = need("torch")
    need("torchvision")
    from torchvision import transforms
    from torchvision.datasets import ImageFolder

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(network.SIZE, scale=(0.6, 1.0), ratio=(1 / 1.2, 1.2)),
            transforms.RandomHorizontalFlip(0.5),
            transforms.ColorJitter(0.3, 0.3, 0.3),
            transforms.ToTensor(),
            transforms.RandomApply([transforms.GaussianBlur(7, sigma=(0.05, 1.0))], 0.5),
            transforms.Normalize((network.MEAN,) * 3, (network.STD,) * 3),
        ]
    )
    data = ImageFolder(folder, transform)
    batches = PairBatches(np.array(data.targets), pairs)
    loader = torch.utils.data.DataLoader(
        PairsOfFolder(data), batch_sampler=batches, num_workers=workers,
        persistent_workers=workers > 0,
    )  # fmt: skip
    model = network.in_torch(channels_last)
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    form = torch.channels_last if channels_last else torch.contiguous_format
    facts = {
        **network.torch_facts(),
        "least": LEAST,
        "parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "images": len(data),
        "batch": [2 * pairs, network.SIZE, network.SIZE, 3],
    }

    def train(n: int) -> Iterator[float]:
        batches.count = n
        for left, right, same in loader:
            batch = torch.cat([left, right]).contiguous(memory_format=form)
            yield torch_step(model, optimizer, batch, same)

    return facts, training(train)


# ---------------------------------------------------------------------------------- the row


def measure(settings: Settings) -> Result:
    """Against a DataLoader with torchvision's transforms, at its better number of workers."""
    with tempfile.TemporaryDirectory() as place:
        if settings.photos is None:
            folder = jpeg_folder(Path(place), CLASSES, 200 if settings.turn else 6)
        else:
            folder = folder_of_classes(settings.photos)
        given = {"folder": str(folder), "pairs": settings.pairs}
        ways = [(workers, last) for workers in WORKERS for last in (False, True)]
        peers_wanted = [
            ("jpeg:in_torch", {**given, "workers": workers, "channels_last": last})
            for workers, last in ways
        ]
        with sides(("jpeg:ours", given), *peers_wanted) as parts:
            checked = require_same(parts, "parameters", "images", "batch")
            mine, *peers = alternate(parts, settings)
            if settings.turn:
                checked += require_falling([mine, *peers])
            facts = parts[1].facts
    best = fastest(peers)
    names = [f"{w} workers, {'channels last' if c else 'contiguous'}" for w, c in ways]
    images = 2 * settings.pairs
    return Result(
        what="the same from 200x200 JPEGs, cropped, flipped, recoloured, blurred",
        ours=rate(mine, images),
        peer=rate(peers[best], images),
        against=f"torchvision in a DataLoader, {facts['peer']}, {names[best]}",
        ratio=ratio("speed", seconds(peers[best]), seconds(mine)),
        checked=checked,
        figures={"ours": seconds(mine), **dict(zip(names, map(seconds, peers), strict=True))},
    )
