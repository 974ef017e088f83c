"""What the networks compute is what timm's do, of the same file."""

import pytest

pytest.importorskip("timm")

import timm

from fewshot_pretrained.parity import hub, packaged
from fewshot_pretrained.parity.drawn import BOUND

PUBLISHED = hub.components()


@pytest.mark.parametrize("component", PUBLISHED, ids=lambda component: component.name)
def test_embeddings_and_preprocessing_agree(component):
    assert hub.grey_levels(component) <= 1
    assert all(row.apart <= BOUND for row in hub.compare(component))


@pytest.mark.parametrize("component", PUBLISHED, ids=lambda component: component.name)
def test_what_is_said_of_weights_is_what_timm_says(component):
    published = hub.weights_of(component)
    name, _ = hub.reference_of(component)
    record = timm.get_pretrained_cfg(name)
    assert published.licence.lower() == record.license
    assert published.repository == record.hf_hub_id
    assert (published.mean, published.std) == (record.mean, record.std)
    assert published.interpolation == record.interpolation
    assert published.crop == (1.0 if component.name in hub.UNCUT else record.crop_pct)


@pytest.mark.parametrize("name", packaged.REFERENCES)
def test_packaged_weights_give_what_pytorch_makes_of_the_published_file(name):
    apart = packaged.compare(name, None)
    if apart is None:
        pytest.skip(f"the package with the weights of {name} is not installed")
    assert apart <= packaged.TOLERANCE
