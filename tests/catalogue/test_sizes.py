"""Sizes beyond all memory are refused with what they would take, before anything is computed."""

import pytest
from attrs import evolve

from fewshot import Component, ConfigError
from fewshot.catalogue.loading import build_registry
from fewshot.catalogue.registry import Registered, make
from fewshot.compute.modules import parameter_bytes
from fewshot.core.machine import memory
from fewshot.parts.backbones import Conv4Options, conv4

REGISTRY, _ = build_registry()
CONV4 = REGISTRY.get("backbone", "conv4")
SHAPE = (16, 16, 3)


def test_bytes_are_those_of_the_arrays() -> None:
    width = 3
    weights = 9 * (3 * width + 3 * width * width)  # without bias
    norms = 4 * 4 * width  # scale, shift, running mean and variance of four blocks
    assert parameter_bytes(conv4(Conv4Options(width), SHAPE)) == 4 * (weights + norms)


@pytest.mark.parametrize("width", [10**6, 10**8, 2 * 10**9])
def test_weights_beyond_memory_are_refused_with_their_size(width: int) -> None:
    wanted = 4 * 9 * 3 * width * width / 1e9
    with pytest.raises(ConfigError, match=r"backbone 'conv4' would take .* GB") as caught:
        make(CONV4, Conv4Options(width), SHAPE)
    told = float(str(caught.value).split("take ")[1].split(" GB")[0].replace(",", ""))
    assert told == pytest.approx(wanted, rel=0.01)


def test_numbers_that_mlx_cannot_count_are_refused() -> None:
    with pytest.raises(ConfigError, match="takes more memory than there is"):
        make(CONV4, Conv4Options(10**10), SHAPE)


def test_the_memory_of_a_container_counts(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("max\n")
    assert memory(limit) == memory(tmp_path / "none")
    limit.write_text("1000\n")
    assert memory(limit) == 1000
    from fewshot.catalogue import registry

    monkeypatch.setattr(registry, "memory", lambda: 1000)
    with pytest.raises(ConfigError, match="GB"):
        make(CONV4, Conv4Options(8), SHAPE)
    other: Registered = evolve(CONV4, part=Component("small", conv4, Conv4Options))
    assert make(other, Conv4Options(1), (16, 16, 1)) is not None
