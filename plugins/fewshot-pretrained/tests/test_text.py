"""Names of classes, by a planted tokenizer and a small text tower of drawn weights."""

from functools import partial

import mlx.core as mx
import numpy as np
import pytest
from attrs import evolve
from mlx.utils import tree_flatten

import fewshot as fs
from fewshot import Component, DataError, build_registry
from fewshot.catalogue.registry import Registered
from fewshot.testing import check_backbone
from fewshot_pretrained.networks import vit
from fewshot_pretrained.networks.hub import Published
from fewshot_pretrained.networks.text import TOKENIZER, WEIGHTS, TextTower, tokens

pytest.importorskip("tokenizers")

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

SHAPE = (16, 16, 3)
PUBLISHED = Published(
    "owner/network", "MIT", "noise", others=("visual.", "logit_"), files=(WEIGHTS, TOKENIZER)
)
SMALL = {"width": 8, "heads": 2, "context": 40, "depth": 2}
_IMAGES = vit.Plan(patch=8, width=8, heads=2, depth=1)
IMAGES = {
    "clip": evolve(_IMAGES, norm_first=True, projected=6),
    "siglip": evolve(_IMAGES, prefix=0, placed=0, pooled=True),
}
PLANS = {
    "clip": evolve(vit.CLIP_TEXT, vocabulary=258, end=257, dim=6, **SMALL),
    "siglip": evolve(vit.SIGLIP_TEXT, vocabulary=40, dim=8, **SMALL),
}


def of_bytes():
    """As CLIP's: small letters, byte pairs (here none is joined), a start and an end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "<|startoftext|>", "<|endoftext|>"]
    made = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, []))
    made.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.post_processor = processors.RobertaProcessing(
        (words[257], 257), (words[256], 256), trim_offsets=False, add_prefix_space=False
    )
    return made


def of_pieces():
    """As SigLIP's sentencepiece: pieces by their likelihood, an end, no small letters made."""
    letters = [(letter, -3.0) for letter in "▁abcdefghijklmnopqrstuvwxyz"]
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters, ("▁photo", -2.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=2))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.post_processor = processors.TemplateProcessing("$A </s>", special_tokens=[("</s>", 1)])
    return made


TOKENIZERS = {"clip": of_bytes, "siglip": of_pieces}


def write(folder, name, tower):
    """Published files: the whole model under OpenCLIP's names, its tokenizer."""
    tensors = {PLANS[name].prefix + key: value for key, value in tree_flatten(tower.parameters())}
    mx.save_safetensors(
        str(folder / WEIGHTS), {**tensors, "visual.a": mx.zeros(3), "logit_scale": mx.array(4.6)}
    )
    TOKENIZERS[name]().save(str(folder / TOKENIZER))


@pytest.fixture(scope="module", params=PLANS)
def there(request, tmp_path_factory):
    """A name, the text tower whose files are in a folder, and how its backbone is made."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    mx.random.seed(3)
    tower = TextTower(PLANS[name])
    tower.apply(lambda array: array + 0.3 * mx.random.normal(array.shape))  # nothing neutral
    write(folder, name, tower)
    factory = partial(vit.captioned, IMAGES[name], PLANS[name], "tiny", PUBLISHED)
    return name, tower, folder, factory


def options(folder, **more):
    return vit.CaptionedOptions(text=str(folder), weights="none", **more)


def test_a_network_with_text_keeps_the_laws_of_a_backbone(there):
    *_, folder, factory = there
    check_backbone(factory, options(folder, frozen=False))
    assert hasattr(factory(options(folder), SHAPE), "text")
    assert not hasattr(factory(options(folder, output="mean"), SHAPE), "text")


def test_a_name_is_read_in_its_template(there):
    name, tower, folder, factory = there
    asked = factory(options(folder), SHAPE).text(["grey_wolf", "cat"])
    texts = ["a photo of a grey wolf.", "a photo of a cat."]
    bare = factory(options(folder, template="{}"), SHAPE).text(texts)
    np.testing.assert_array_equal(asked, bare)
    due = tower(*tokens(PLANS[name], folder / TOKENIZER, texts))
    np.testing.assert_array_equal(asked, due)
    with pytest.raises(ValueError, match="template"):
        options(folder, template="a photo")


def test_a_text_ends_where_the_network_was_taught_that_it_does(there):
    name, _, folder, _ = there
    plan = PLANS[name]
    ids, ends = map(np.array, tokens(plan, folder / TOKENIZER, ["Cat!", "a" * 90, "cat"]))
    end = plan.end
    assert (np.take_along_axis(ids, ends[:, None], axis=1) == end).all()
    assert ids.shape == (3, plan.context)  # the long one is cut off
    if name == "clip":  # the first end; a mark counts
        assert (np.argmax(ids == end, axis=1) == ends).all()
        assert ends.tolist() == [5, plan.context - 1, 4]
    else:  # filled up, small letters without marks
        assert (ends == plan.context - 1).all()
        np.testing.assert_array_equal(ids[0], ids[2])
        assert (ids[2] != end).sum() == len("▁cat")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda folder: (folder / TOKENIZER).unlink(), "cannot read names without it: `fewshot fe"),
        (lambda folder: (folder / WEIGHTS).unlink(), "backbone.text=FOLDER"),
        (lambda folder: (folder / TOKENIZER).write_text("{}"), "not a tokenizer"),
        (lambda folder: of_pieces().save(str(folder / TOKENIZER)), "does not end a text"),
        (
            lambda folder: write(folder, "clip", TextTower(evolve(PLANS["clip"], depth=1))),
            "tiny lack transformer.resblocks.1",
        ),
    ],
)
def test_what_cannot_read_names_is_refused(change, says, tmp_path):
    write(tmp_path, "clip", TextTower(PLANS["clip"]))
    network = vit.captioned(
        IMAGES["clip"], PLANS["clip"], "tiny", PUBLISHED, options(tmp_path), SHAPE
    )
    network.text(["cat"])
    change(tmp_path)
    with pytest.raises(DataError, match=says):
        network.text(["cat"])


def test_a_tokenizer_of_more_tokens_is_refused(tmp_path):
    of_bytes().save(str(tmp_path / TOKENIZER))
    with pytest.raises(DataError, match="258 tokens, 40 are due"):
        tokens(PLANS["siglip"], tmp_path / TOKENIZER, ["cat"])


def test_names_alone_make_a_classifier(there):
    """The nearest name by cosine; without an image, without a step."""
    *_, folder, factory = there
    known = build_registry()[0]
    part = Component("tiny", factory, vit.CaptionedOptions, initialise=lambda *_: None)
    known.add([Registered("backbone", part, "tried", "1")])
    network = {
        "backbone": {"name": "tiny", "text": str(folder), "weights": "none"},
        "dataset": {"size": 16},
        "preprocess": [],
    }
    names = ("cat", "grey_wolf", "owl")
    made = fs.Classifier.of(network, names, registry=known)
    images = np.random.default_rng(0).integers(0, 256, (6, *SHAPE), np.uint8)
    embedded = made.embedder(mx.array(images.astype(np.float32) / 255))
    due = np.array(embedded @ mx.array(made.embedder.of_names(names)).T).argmax(axis=1)
    assert [one.best for one in made.predict(images)] == [names[i] for i in due]
