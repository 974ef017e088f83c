"""Whether text towers compute what transformers' do, of the same drawn weights.

Transformers' text model of a plan gets weights that are drawn, none of them neutral. They are
written under OpenCLIP's names, as they are published, and loaded by these.
"""

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np

from ..networks.hub import load
from ..networks.packaged import tensors_of
from ..networks.text import WEIGHTS, TextPlan, TextTower
from .drawn import draw

_OPENCLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def compare(plan: TextPlan, seed: int = 0) -> float:
    """The largest difference of an embedding, as a share of the largest number."""
    import torch
    from safetensors.torch import save_file

    reference = _reference(plan)
    draw(reference, seed)
    rng = np.random.default_rng(seed)
    # The end's place in a text of CLIP differs, and texts go on after it; SigLIP's is the last.
    ids = rng.integers(0, plan.vocabulary - 1, (3, plan.context))
    ends = np.array([2, 7, plan.context - 1]) if plan.causal else np.full(3, plan.context - 1)
    ids[np.arange(3), ends] = plan.vocabulary - 1
    with TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder, WEIGHTS)
        save_file(dict(_as_published(plan, reference.state_dict())), path)
        given = reference(input_ids=torch.from_numpy(ids))
        due = (given.text_embeds if plan.causal else given.pooler_output).numpy()
        tower = TextTower(plan)
        tensors = tensors_of(path)
        load(tower, {name.removeprefix(plan.prefix): t for name, t in tensors.items()}, (), "they")
    found = np.array(tower(mx.array(ids), mx.array(ends)))
    return float(np.abs(found - due).max() / np.abs(due).max())


def _reference(plan: TextPlan) -> Any:
    from transformers import (
        CLIPTextConfig,
        CLIPTextModelWithProjection,
        SiglipTextConfig,
        SiglipTextModel,
    )

    sizes = {
        "vocab_size": plan.vocabulary, "hidden_size": plan.width, "layer_norm_eps": plan.eps,
        "intermediate_size": 4 * plan.width, "num_hidden_layers": plan.depth,
        "num_attention_heads": plan.heads, "max_position_embeddings": plan.context,
        "projection_dim": plan.dim, "projection_size": plan.dim,
        "eos_token_id": plan.vocabulary - 1, "bos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    if plan.causal:
        return CLIPTextModelWithProjection(CLIPTextConfig(**sizes)).eval()
    return SiglipTextModel(SiglipTextConfig(**sizes)).eval()


def _as_published(plan: TextPlan, tensors: Any) -> Iterator[tuple[str, Any]]:
    """Transformers' tensors under OpenCLIP's names, queries, keys and values in one."""
    import torch

    own = {name.removeprefix("text_model."): tensor for name, tensor in tensors.items()}
    names = {
        "embeddings.token_embedding.weight": "token_embedding.weight",
        "embeddings.position_embedding.weight": "positional_embedding",
        "final_layer_norm.weight": "ln_final.weight",
        "final_layer_norm.bias": "ln_final.bias",
    }
    if plan.causal:
        yield "text_projection", own["text_projection.weight"].T.contiguous()
    else:
        names |= {f"head.{kind}": f"text_projection.{kind}" for kind in ("weight", "bias")}
    for i in range(plan.depth):
        layer, block = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
        for kind in ("weight", "bias"):
            for theirs, ours in _OPENCLIP.items():
                names[f"{layer}.{theirs}.{kind}"] = f"{block}.{ours}.{kind}"
            three = [own[f"{layer}.self_attn.{x}_proj.{kind}"] for x in "qkv"]
            yield f"{plan.prefix}{block}.attn.in_proj_{kind}", torch.cat(three)
    for theirs, ours in names.items():
        yield plan.prefix + ours, own[theirs].contiguous()
