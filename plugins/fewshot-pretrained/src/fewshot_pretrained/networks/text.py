"""Text towers: names of classes embedded where CLIP and SigLIP embed their images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from string import punctuation
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from attrs import frozen

from fewshot import DataError, data_folder

from .attention import attended
from .hub import TEXT, Published, load, require_noted
from .packaged import tensors_of

WEIGHTS, TOKENIZER = "open_clip_model.safetensors", "tokenizer.json"


@frozen
class TextPlan:
    """What tells one text tower from another.

    `context`: tokens of a text, at the most; `dim`: numbers of an embedding; `end`: the token that
    ends a text and fills it up. `causal`: a token sees those before it, and a text is the first
    `end` (CLIP); else it sees all, a text is filled up to `context` and is its last token, and is
    written small and without punctuation (SigLIP). `prefix`: of the names in the published file.
    """

    vocabulary: int
    width: int
    heads: int
    context: int
    dim: int
    end: int
    causal: bool
    gelu: Callable[[mx.array], mx.array]
    eps: float
    depth: int = 12
    prefix: str = ""


class Attention(nn.Module):
    """Of every token to all, or to those up to itself."""

    def __init__(self, plan: TextPlan) -> None:
        super().__init__()
        width = plan.width
        self._plan = plan
        self.in_proj_weight = mx.random.normal((3 * width, width), scale=width**-0.5)
        self.in_proj_bias = mx.zeros(3 * width)
        self.out_proj = nn.Linear(width, width)

    def __call__(self, x: mx.array) -> mx.array:
        """(n, length, width) -> the same shape."""
        q, k, v = mx.split(x @ self.in_proj_weight.T + self.in_proj_bias, 3, axis=-1)
        return self.out_proj(
            attended(q, k, v, self._plan.heads, "causal" if self._plan.causal else None)
        )


class Block(nn.Module):
    """Attention and two linear layers, each after layer norm and added to its input."""

    def __init__(self, plan: TextPlan) -> None:
        super().__init__()
        width = plan.width
        self._gelu = plan.gelu
        self.ln_1, self.ln_2 = (nn.LayerNorm(width, plan.eps) for _ in range(2))
        self.attn = Attention(plan)
        self.mlp = {"c_fc": nn.Linear(width, 4 * width), "c_proj": nn.Linear(4 * width, width)}

    def __call__(self, x: mx.array) -> mx.array:
        """(n, length, width) -> the same shape."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp["c_proj"](self._gelu(self.mlp["c_fc"](self.ln_2(x))))


class TextTower(nn.Module):
    """Radford et al. 2021, section 2.4; Zhai et al. 2023: tokens (n, length) -> (n, dim).

    Its parameters have the names of OpenCLIP's files.
    """

    def __init__(self, plan: TextPlan) -> None:
        super().__init__()
        self._causal = plan.causal
        self.token_embedding = nn.Embedding(plan.vocabulary, plan.width)
        self.positional_embedding = mx.random.normal((plan.context, plan.width), scale=0.01)
        self.transformer = {"resblocks": [Block(plan) for _ in range(plan.depth)]}
        self.ln_final = nn.LayerNorm(plan.width, plan.eps)
        if plan.causal:
            scale = plan.width**-0.5
            self.text_projection: Any = mx.random.normal((plan.width, plan.dim), scale=scale)
        else:
            self.text_projection = nn.Linear(plan.width, plan.dim)

    def __call__(self, tokens: mx.array, ends: mx.array) -> mx.array:
        """`ends` (n,): the place of the token that stands for the text."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        for block in self.transformer["resblocks"]:
            x = block(x)
        own = self.ln_final(mx.take_along_axis(x, ends[:, None, None], axis=1)[:, 0])
        return own @ self.text_projection if self._causal else self.text_projection(own)


def tokens(plan: TextPlan, path: Path, texts: Sequence[str]) -> tuple[mx.array, mx.array]:
    """Texts as tokens (n, length), by a published tokenizer.json, and the place of each one's end.

    Raises DataError without the library `tokenizers`, and for a file that is none of its own or of
    another network.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise DataError(
            "names are read by the library tokenizers, which is not installed: "
            "pip install 'fewshot-pretrained[hub]'"
        ) from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing else
        raise DataError(f"{path}: not a tokenizer: {' '.join(str(error).split())}") from error
    if tokenizer.get_vocab_size() > plan.vocabulary:
        raise DataError(
            f"{path}: a tokenizer of {tokenizer.get_vocab_size()} tokens, {plan.vocabulary} are due"
        )
    if not plan.causal:
        nothing = str.maketrans("", "", punctuation)
        texts = [" ".join(text.translate(nothing).split()).lower() for text in texts]
    tokenizer.enable_truncation(plan.context)
    length = None if plan.causal else plan.context
    tokenizer.enable_padding(pad_id=plan.end, length=length)
    ids = np.array([each.ids for each in tokenizer.encode_batch(list(texts))])
    is_end = ids == plan.end
    if not is_end.any(axis=1).all():
        raise DataError(f"{path}: a tokenizer that does not end a text with token {plan.end}")
    ends = is_end.argmax(axis=1) if plan.causal else np.full(len(ids), plan.context - 1)
    return mx.array(ids), mx.array(ends)


def read_names(
    plan: TextPlan, name: str, published: Published, given: str, template: str, names: Sequence[str]
) -> mx.array:
    """Embeddings (n, dim) of the names of classes, an underscore of which is a space.

    `given`: the folder of the published files, "" for where `fetch` brings those of the backbone
    `name`. They are read at every call and not kept. `template`: a text about {}, the name. Raises
    DataError where they are missing, or another network's.
    """
    folder = Path(given or data_folder(name) / TEXT)
    for file in (WEIGHTS, TOKENIZER):
        if not (folder / file).is_file():
            raise DataError(
                f"{folder / file}: {name} cannot read names without it: `fewshot fetch "
                f"backbone/{name}` brings {published.repository} ({published.licence}), --set "
                "backbone.text=FOLDER names where it is, --set head.names=false does without"
            )
        if not given:
            require_noted(folder / file)
    tower = TextTower(plan)
    path = folder / WEIGHTS
    tensors = {
        each.removeprefix(plan.prefix): tensor
        for each, tensor in tensors_of(path, published.others).items()
    }
    load(tower, tensors, (), f"{path}: the text tower of {name}")
    texts = [template.format(each.replace("_", " ")) for each in names]
    ids, ends = tokens(plan, folder / TOKENIZER, texts)
    parts = [tower(ids[i : i + 64], ends[i : i + 64]) for i in range(0, len(texts), 64)]
    return mx.concatenate(parts)
