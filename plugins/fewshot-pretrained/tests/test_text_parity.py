"""What the text towers compute is what transformers' do, of the same file."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from attrs import evolve

from fewshot_pretrained.networks import vit
from fewshot_pretrained.parity import text
from fewshot_pretrained.parity.drawn import BOUND


@pytest.mark.parametrize("plan", [vit.CLIP_TEXT, vit.SIGLIP_TEXT], ids=["clip", "siglip"])
def test_embeddings_of_texts_agree(plan):
    assert text.compare(evolve(plan, depth=2, vocabulary=500)) <= BOUND
