"""Networks beside each other: each as it is alone, the frozen one silent while another learns."""

from typing import Any

import attrs
import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from toys import toy

import fewshot as fs
from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, Registry
from fewshot.compute.modules import snapshot
from fewshot.core.errors import ConfigError
from fewshot.experiments.assembly import build, initialise
from fewshot.experiments.config import resolve
from fewshot.parts.backbones import Conv4, Conv4Options
from fewshot.parts.metrics import unit
from fewshot.testing import check_backbone

DATA = toy()


def published(options: Conv4Options, shape: Any) -> Conv4:
    made = Conv4(options.width, shape)
    made.freeze()
    return made


def ones(made: Conv4, _: Conv4Options) -> None:
    made.load_weights([(name, mx.ones_like(a)) for name, a in tree_flatten(made.parameters())])


def registry() -> Registry:
    made, installed = Registry(), build_registry()[0]
    for kind in KINDS:
        made.add(installed.all(kind))
    part = fs.Component("published", published, Conv4Options, "frozen", initialise=ones)
    made.add([Registered("backbone", part, "toy", "1")])
    return made


REGISTRY = registry()


def parts(*names: str, **layer: Any) -> Any:
    backbone = {"name": "beside", "parts": {n: {"name": n, "width": 2} for n in names}}
    layer |= {"backbone": backbone, "dataset": "arrays", "training": {"steps": 3}}
    return build(resolve(REGISTRY, [layer, {"sampler": {"per_class": 2}}]), REGISTRY, DATA)


def test_each_embeds_as_it_does_alone_at_length_1() -> None:
    net = parts("conv4", "published").embedder.backbone.eval()
    images = mx.array(np.random.default_rng(0).random((5, 16, 16, 1), "f4"))
    found = np.split(np.array(net(images)), [2], axis=1)
    for name, rows in zip(("conv4", "published"), found, strict=True):
        assert np.allclose(rows, np.array(unit(net.parts[name](images))), atol=1e-6)
    assert net.embedding_dim == 4


def test_a_frozen_network_is_silent_where_another_learns_and_stays_as_it_came() -> None:
    made = parts("conv4", "published")
    assert initialise(made, REGISTRY)
    net = made.embedder.backbone
    frozen = dict(snapshot(net.parts["published"]))
    assert all((np.array(array) == 1).all() for array in frozen.values())
    images = mx.array(np.random.default_rng(0).random((4, 16, 16, 1), "f4"))
    assert not np.array(net.train()(images))[:, 2:].any()
    before = dict(snapshot(net.parts["conv4"]))
    fs.fit(made.embedder, DATA, made.sampler, made.loss, made.metric, options=made.config.training)
    after = dict(snapshot(net.parts["conv4"]))
    assert not all(mx.array_equal(before[name], after[name]) for name in before)
    assert all(mx.array_equal(frozen[n], a) for n, a in snapshot(net.parts["published"]))


def test_where_none_learns_all_speak() -> None:
    made = parts("published")
    assert initialise(made, REGISTRY)
    images = mx.array(np.random.default_rng(0).random((4, 16, 16, 1), "f4"))
    assert np.array(made.embedder.backbone.train()(images)).any()


@pytest.mark.parametrize("kind", ["train", "whiten"])
def test_a_centre_is_of_what_is_frozen_beside_what_learns(kind: str) -> None:
    made = parts("conv4", "published", embedding={"centre": kind})
    assert initialise(made, REGISTRY)
    fs.recentre(made.embedder, DATA, np.arange(len(DATA.labels)))
    centre = made.embedder.centre
    assert centre is not None
    assert np.array(centre.mean).any()
    x = mx.array(np.random.default_rng(0).random((5, 4), "f4"))
    learned, frozen = np.split(np.array(centre(x)), [2], axis=1)
    assert np.array_equal(learned, np.array(x)[:, :2])
    assert np.allclose(np.linalg.norm(frozen, axis=1), 1, atol=1e-6)
    alone = parts("published", embedding={"centre": kind})
    assert initialise(alone, REGISTRY)
    fs.recentre(alone.embedder, DATA, np.arange(len(DATA.labels)))
    assert alone.embedder.centre is not None
    assert np.allclose(frozen, np.array(unit(alone.embedder.centre(x[:, 2:]))), atol=1e-5)


def test_a_centre_of_all_that_was_kept_is_still_of_all() -> None:
    x = mx.array(np.random.default_rng(0).random((5, 4), "f4"))
    found = fs.Centre(4, whitens=True, of=np.array([False, False, True, True]))
    kept = fs.Centre(4, whitens=True)
    for centre in (found, kept):
        centre.mean, centre.within = mx.array([0.1, 0.2, 0.3, 0.4]), 0.3 * mx.eye(4)
    assert np.allclose(np.array(unit(found(x))), np.array(unit(kept(x))), atol=1e-6)


def test_without_a_network_the_way_out_is_named() -> None:
    with pytest.raises(ConfigError, match=r"backbone\.parts\.NAME\.name"):
        parts()


def test_networks_beside_each_other_keep_the_laws_of_one() -> None:
    config = parts("conv4").config
    entry = REGISTRY.get("backbone", "beside")

    def factory(options: Any, shape: Any) -> Any:
        made = {name: Conv4(2, shape) for name in config.backbone.options.parts}
        return entry.component.factory(attrs.evolve(options, parts=made), shape)

    check_backbone(factory, entry.component.options())
