"""Weights on the Hugging Face hub: fetched, noted and known again, put into a network by name.

A network here has the published names for its parameters.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen
from mlx.utils import tree_flatten
from numpy.typing import NDArray
from PIL import Image

from fewshot import Component, DataError, OutputError, data_folder

from .packaged import tensors_of
from .published import DRAWN, FILE, Interpolation, PublishedOptions, Shape, implied

NOTE, TEXT = "source.json", "text"  # the note, and the folder of a text tower


@frozen
class Published:
    """Weights that someone has published, and what they were trained on.

    `repository`: on the Hugging Face hub, and its `files`, the weights first. `size`: of the
    images, in pixels a side; `mean` and `std` of each channel, of values in [0, 1]; `crop`: the
    share of the shorter side that the published evaluation keeps; `interpolation`: how it scales.
    `sha256`: of the weights, where it is known; else what the hub gives first is noted, and told
    from any other.
    `others`: tensors of the file that the network here has no use for, by how their names begin.
    `text`: those of what embeds names, where the network has it.
    """

    repository: str
    licence: str
    trained_on: str
    size: int = 224
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    crop: float = 1.0
    interpolation: Interpolation = "bicubic"
    others: tuple[str, ...] = ()
    sha256: str | None = None
    files: tuple[str, ...] = (FILE,)
    text: "Published | None" = None

    def implied(self) -> dict[str, Any]:
        """The configuration that goes with the weights."""
        normalise = {"mean": list(self.mean), "std": list(self.std)}
        return implied(self.size, self.interpolation, normalise)


def component(
    name: str,
    factory: Callable[[Any, Shape], nn.Module],
    options: type[PublishedOptions],
    published: Published,
    summary: str,
) -> Component:
    """A backbone with published weights, which are fetched and loaded by the published names."""
    return Component(
        name,
        factory,
        options,
        f"{summary}, {published.trained_on} ({published.licence})",
        partial(fetch, published),
        partial(initialise, name, published),
        published.implied(),
    )


def published_of(part: Component) -> Published | None:
    """The weights of what `component` made; None for any other."""
    first = part.fetch.args[0] if isinstance(part.fetch, partial) else None
    return first if isinstance(first, Published) else None


def as_published(image: Image.Image, published: Published) -> NDArray[np.uint8]:
    """An RGB image as the published evaluation sees it, before mean and std: (size, size, 3).

    The shorter side is scaled to size / crop, the middle is cut out.
    """
    short = int(published.size / published.crop)
    scale = short / min(image.size)
    width, height = (max(short, int(side * scale + 1e-6)) for side in image.size)
    resampling = Image.Resampling[published.interpolation.upper()]
    scaled = image.convert("RGB").resize((width, height), resampling)
    left, top = (round((side - published.size) / 2) for side in scaled.size)
    return np.asarray(scaled.crop((left, top, left + published.size, top + published.size)))


# -------------------------------------------------------------------------------- fetch


def fetch(published: Published, folder: Path, progress: Callable[[str, int, int], None]) -> None:
    """Bring published weights from the hub; size and licence are printed before.

    What came is noted beside the files: others are refused from then on, and the revision that is
    noted is the one brought again. What embeds names comes too, into a folder `text` there. Raises
    DataError without huggingface_hub,
    and where the hub does not give the file or gives another; OutputError where it cannot be
    written.
    """
    if published.text is not None:
        fetch(published.text, folder / TEXT, progress)
    noted = _noted(folder)
    if noted and all((folder / name).exists() for name in published.files):
        for name in published.files:
            require_noted(folder / name)
        return
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise DataError(
            f"{published.repository} comes through huggingface_hub, which is not installed: "
            "pip install 'fewshot-pretrained[hub]', then fetch again"
        ) from error
    where = f"{published.repository} on the hub"
    try:
        info = HfApi().model_info(
            published.repository, revision=noted.get("revision"), files_metadata=True
        )
        there = {file.rfilename: file for file in info.siblings or ()}
        files = [there[name] for name in published.files]
        size = sum(file.size or 0 for file in files)
        licence = getattr(info.card_data, "license", None) or published.licence
        print(
            f"{where}: {size / 1e6:.0f} MB, licence {licence}, revision {info.sha}",
            file=sys.stderr,
        )
        for name in published.files:
            hf_hub_download(published.repository, name, revision=info.sha, local_dir=folder)
    except KeyError as error:
        raise DataError(f"{where} has no {error.args[0]}") from error
    except Exception as error:  # the library's own, those of the network and of the file system
        line = " ".join(str(error).split())
        way_out = "weights=PATH" if FILE in published.files else "text=FOLDER"
        raise DataError(
            f"{where} did not give {' and '.join(published.files)}: {line}; what is here already: "
            f"--set backbone.{way_out}"
        ) from error
    digests = {name: _sha256(folder / name) for name in published.files}
    for file in files:
        name = file.rfilename
        pinned = published.sha256 if name == published.files[0] else None
        due = pinned or noted.get("sha256", {}).get(name) or (file.lfs and file.lfs.sha256)
        if due and digests[name] != due:
            (folder / name).unlink()
            raise DataError(f"{where} gave another {name} than sha256:{due}, nothing of it is kept")
    note = {
        "repository": published.repository,
        "revision": info.sha,
        "licence": licence,
        "sha256": digests,
    }
    try:
        (folder / NOTE).write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{folder / NOTE}: cannot be written: {error.strerror}") from error
    progress(published.files[0], size, size)


def require_noted(path: Path) -> None:
    """Raise DataError where a file that was fetched is not what came then."""
    due = _noted(path.parent).get("sha256", {}).get(path.name)
    if due is not None and _sha256(path) != due:
        raise DataError(
            f"{path} is not the file that was fetched ({path.parent / NOTE}): remove it, then "
            "fetch again"
        )


def _noted(folder: Path) -> dict[str, Any]:
    try:
        noted: dict[str, Any] = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / NOTE}: not readable: {error}; remove it, fetch again"
        ) from error
    return noted


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------------------ network


def colour(images: mx.array) -> mx.array:
    """(b, h, w, 1 or 3) -> (b, h, w, 3): grey as equal red, green and blue."""
    return mx.broadcast_to(images, (*images.shape[:3], 3))


def initialise(name: str, published: Published, network: nn.Module, options: Any) -> None:
    """Give a network its published weights. Raises DataError where they are missing or unfit."""
    if options.weights == DRAWN:
        return
    path = Path(options.weights or data_folder(name) / FILE)
    if not path.is_file():
        raise DataError(
            f"{path}: no weights of {name} there: `fewshot fetch backbone/{name}` brings "
            f"{published.repository} ({published.licence}), --set backbone.weights=PATH names a "
            f"file, --set backbone.weights={DRAWN} starts from scratch"
        )
    if not options.weights:
        require_noted(path)
    load(network, tensors_of(path), published.others, f"{path}: the weights of {name}")


def load(network: Any, tensors: Mapping[str, Any], others: Sequence[str], called: str) -> None:
    """Put tensors under PyTorch's names and layouts into a network of the same names.

    A weight of a convolution (o, i, h, w) becomes (o, h, w, i); what else a network wants to be
    changed, its `fitted(name, tensor)` does. Raises DataError, so calling them, where a tensor
    is missing, is of another shape, or belongs to nothing.
    """
    given = {
        name: mx.array(tensor.transpose(0, 2, 3, 1) if tensor.ndim == 4 else tensor).astype(
            mx.float32
        )
        for name, tensor in tensors.items()
        if not name.startswith(tuple(others)) and not name.endswith("num_batches_tracked")
    }
    if hasattr(network, "fitted"):
        given = {name: network.fitted(name, tensor) for name, tensor in given.items()}
    leaves: Any = tree_flatten(network.parameters())
    due = dict(leaves)
    for what, names in (
        ("lack", due.keys() - given.keys()),
        ("also have", given.keys() - due.keys()),
    ):
        if names:
            first = min(names)
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise DataError(f"{called} {what} {first}{more}")
    for name, tensor in given.items():
        if tensor.shape != due[name].shape:
            raise DataError(
                f"{called}: {name} is {tensor.shape}, {due[name].shape} is due (channels last)"
            )
    network.load_weights(list(given.items()))
    mx.eval(network.parameters())
