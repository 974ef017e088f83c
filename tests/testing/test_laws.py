"""Every registered component keeps every law of its kind, at its default and at other options."""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from strategies import REGISTRY

from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.registry import Registered
from fewshot.core.errors import DataError
from fewshot.core.options import component_tables
from fewshot.testing import LAWS, LawBroken, try_part

# Options beside the default ones, that change which laws are demanded or how they are kept.
OTHERS: dict[str, list[dict[str, Any]]] = {
    "nearest-support": [
        *({"neighbours": k} for k in (2, 3, 5, 50)),
        {"neighbours": 3, "weights": "distance"},
    ],
    "prototypical": [{"temperature": 0.0625, "label_smoothing": 0.2}],
    "contrastive": [{"margin": 0.25}, {"margin": 3.0}],
    "triplet": [{"margin": 2.0}, {"form": "smooth"}],
    "margin": [{"learned": False}],
    "batch-easy-hard": [{"positives": "hard", "negatives": "easy"}, {"negatives": "hard"}],
    "pairs": [{"same_share": 1.0}, {"pairs": 1, "same_share": 0.0}],
    "sgd": [{"nesterov": True, "weight_decay": 0.01}, {"momentum": 0.0}],
    "adamw": [{"weight_decay": 0.1}],
    "adafactor": [{"scaled": False}],
    "step": [{"at": ()}],
    "maml": [{"inner_steps": 1, "multi_step": 10, "first_order_steps": 5}],
    "blur": [{"probability": 1.0, "sigma": 3.0}],
    "simplecnn": [{"dropout": 0.5, "order": "norm-relu", "channels": (2, 3)}],
    "asl-synthetic": [{"images": 2, "size": 32}],
}
# There are many, or dear ones, and each is its formula in float64 besides (tests/parts).
FEWER = settings(max_examples=settings().max_examples // 3)
# Options in place of the default ones, where these are dear.
CHEAPER: dict[str, dict[str, Any]] = {
    "alpha-tim": {"steps": 5},
    "anil": {"inner_steps": 2},
    "finetune": {"steps": 2, "learning_rate": 1e-4},
    "linear-probe": {"strength": 0.1},
    "lora": {"steps": 2, "learning_rate": 1e-3},
    "logistic": {"steps": 10},
    "maml": {"inner_steps": 1},
    "proto-maml": {"inner_steps": 1},
    "pt-map": {"steps": 4},
    "reptile": {"inner_steps": 2},
    "tim": {"steps": 5},
    "transductive-finetune": {"steps": 2},
    "varied": {"min_way": 2, "max_way": 4, "max_query": 2, "max_support": 20},
}
# Without what is nothing without others of a user's choice; `beside` and `joined` have own tests.
CASES = [
    (entry, options)
    for kind in KINDS
    for entry in REGISTRY.all(kind)
    if kind in ("preset", "study") or not component_tables(entry.component.options)
    for options in [CHEAPER.get(entry.name, {}), *OTHERS.get(entry.name, [])]
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the data sets need that have no data of their own, by component."""
    root = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 6, 5, 3), np.uint8)
    labels = np.arange(12) % 3
    np.savez(root / "arrays.npz", images=images, labels=labels, groups=np.arange(12) // 2,
             role=np.array(["support", "query", "both", "both"] * 3))  # fmt: skip
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        folder = root / "photos" / f"class {label}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{i}.png")
    rows = [f"photos/class {label}/{i}.png,c{label},g{i // 2}" for i, label in enumerate(labels)]
    (root / "photos.csv").write_text("\n".join(["path,label,group", *rows]))
    return {
        "arrays": str(root / "arrays.npz"), "image-folder": str(root / "photos"),
        "image-table": str(root / "photos.csv"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("entry", "options"), CASES, ids=lambda value: getattr(value, "qualified", None)
)
def test_every_component_keeps_every_law(
    entry: Registered, options: dict[str, Any], files: dict[str, str]
) -> None:
    if entry.name in files:
        options = {"path": files[entry.name]}
    chosen = None
    if options and entry.kind not in ("preset", "study"):
        chosen = entry.component.options(**options)
    try:
        fewer = FEWER if entry.kind in ("loss", "miner", "metric") else None
        outcomes = list(try_part(entry, REGISTRY, chosen, fewer))
    except DataError as error:
        if entry.name in files or entry.kind != "dataset":
            raise
        pytest.skip(str(error))
    broken = [outcome for outcome in outcomes if outcome.example is not None]
    if broken:
        raise LawBroken({entry.qualified: broken})


@pytest.mark.parametrize("kind", LAWS)
def test_every_law_is_said_in_one_sentence_and_has_a_name_of_its_own(kind: str) -> None:
    laws = LAWS[kind].laws
    assert len({law.name for law in laws}) == len(laws)
    assert laws[0].name == "made"
    assert all(law.says.endswith(".") and len(law.says) < 120 for law in laws)


def test_every_kind_has_laws() -> None:
    assert set(LAWS) == {*KINDS, "any component"}
