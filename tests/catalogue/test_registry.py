"""Look-ups mean one thing whatever is installed: built-ins first, clashes told, nothing renamed."""

import itertools

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fewshot.catalogue.kinds import KINDS
from fewshot.catalogue.registry import BUILTIN, Registered, Registry
from fewshot.core.components import Component, Preset
from fewshot.core.errors import (
    AmbiguousComponentError,
    ConfigError,
    PluginError,
    UnknownComponentError,
    choose_from,
)

# Few names and providers, so that clashes are common.
NAMES = st.sampled_from(["a", "b", "ab", "cosine", "x-1", "x.1"])
PROVIDERS = st.sampled_from([BUILTIN, "p", "q", "asl"])
OFFERS = st.sets(st.tuples(st.sampled_from(list(KINDS)), PROVIDERS, NAMES), max_size=30)


def entry(kind: str, provider: str, name: str) -> Registered:
    part = Preset(name, {}) if kind == "preset" else Component(name, lambda options: options)
    return Registered(kind, part, provider, "1.0")


def filled(offers: set[tuple[str, str, str]]) -> Registry:
    registry = Registry()
    registry.add(entry(*offer) for offer in sorted(offers))
    return registry


def outcome(registry: Registry, kind: str, name: str) -> tuple[str, ...]:
    """What a look-up comes to, as a value to compare."""
    try:
        found = registry.get(kind, name)
    except ConfigError as error:
        return (type(error).__name__, str(error))
    return (found.kind, found.provider, found.name)


@given(OFFERS)
def test_the_name_of_a_built_in_always_means_the_built_in(offers: set[tuple[str, str, str]]):
    registry = filled(offers)
    for kind, provider, name in offers:
        if provider == BUILTIN:
            assert registry.get(kind, name).provider == BUILTIN
            assert registry.get(kind, name).name == name


@given(OFFERS)
def test_a_plugins_component_is_always_reachable_by_its_qualified_name(
    offers: set[tuple[str, str, str]],
):
    registry = filled(offers)
    for kind, provider, name in offers:
        if provider != BUILTIN:
            found = registry.get(kind, f"{provider}/{name}")
            assert (found.kind, found.provider, found.name) == (kind, provider, name)
            assert found.qualified == f"{provider}/{name}"


@given(OFFERS)
def test_a_bare_name_means_the_only_offer_or_is_an_error_that_lists_them_all(
    offers: set[tuple[str, str, str]],
):
    registry = filled(offers)
    for kind, _, name in offers:
        providers = sorted(p for k, p, n in offers if (k, n) == (kind, name))
        if BUILTIN in providers or len(providers) == 1:
            expected = BUILTIN if BUILTIN in providers else providers[0]
            assert registry.get(kind, name).provider == expected
        else:
            with pytest.raises(AmbiguousComponentError) as caught:
                registry.get(kind, name)
            assert kind in str(caught.value)
            for provider in providers:
                assert f"{provider}/{name}" in str(caught.value)


@given(OFFERS, st.sampled_from(list(KINDS)))
def test_names_lead_back_to_every_entry_exactly_once(offers: set[tuple[str, str, str]], kind: str):
    registry = filled(offers)
    found = [registry.get(kind, name) for name in registry.names(kind)]
    assert registry.names(kind) == sorted(registry.names(kind))
    assert sorted((e.provider, e.name) for e in found) == sorted(
        (provider, name) for k, provider, name in offers if k == kind
    )
    assert [e.qualified for e in registry.all(kind)] == sorted(e.qualified for e in found)


@given(OFFERS, st.randoms(use_true_random=False))
def test_the_order_of_adding_does_not_matter(offers: set[tuple[str, str, str]], random):
    shuffled = sorted(offers)
    random.shuffle(shuffled)
    one, other = filled(offers), Registry()
    for offer in shuffled:
        other.add([entry(*offer)])
    asked = {name for _, p, n in offers for name in (n, f"{p}/{n}")} | {"unheard-of"}
    for kind, name in itertools.product(KINDS, asked):
        assert outcome(one, kind, name) == outcome(other, kind, name)
    for kind in KINDS:
        assert one.names(kind) == other.names(kind)


@given(OFFERS, OFFERS)
def test_adding_is_all_or_nothing(
    first: set[tuple[str, str, str]], more: set[tuple[str, str, str]]
):
    registry = filled(first)
    before = {kind: registry.all(kind) for kind in KINDS}
    clash = first & more
    entries = [entry(*offer) for offer in sorted(more)]
    if clash:
        with pytest.raises(PluginError, match="twice"):
            registry.add(entries)
        assert {kind: registry.all(kind) for kind in KINDS} == before
    else:
        registry.add(entries)
        assert sum(len(registry.all(kind)) for kind in KINDS) == len(first) + len(more)


@given(OFFERS, st.data())
def test_one_provider_cannot_offer_a_name_twice(offers: set[tuple[str, str, str]], data):
    assume(offers)
    twice = data.draw(st.sampled_from(sorted(offers)))
    registry = Registry()
    with pytest.raises(PluginError) as caught:
        registry.add([*(entry(*offer) for offer in sorted(offers)), entry(*twice)])
    assert twice[0] in str(caught.value)
    assert twice[2] in str(caught.value)
    assert not any(registry.all(kind) for kind in KINDS)


@given(OFFERS, st.sampled_from(list(KINDS)), st.text(max_size=8))
def test_an_unknown_name_says_kind_name_and_what_is_valid(
    offers: set[tuple[str, str, str]], kind: str, name: str
):
    registry = filled(offers)
    known = [name for _, p, n in offers for name in (n, f"{p}/{n}")]
    assume(name not in known)
    with pytest.raises(UnknownComponentError) as caught:
        registry.get(kind, name)
    message = str(caught.value)
    assert f"unknown {kind} '{name}'" in message
    for valid in registry.names(kind):
        assert valid in message
    assert caught.value.exit_code == 2


def test_a_typing_error_is_met_with_the_nearest_name():
    registry = filled({("metric", BUILTIN, n) for n in ("euclidean", "sqeuclidean", "cosine")})
    with pytest.raises(UnknownComponentError, match="did you mean 'euclidean'"):
        registry.get("metric", "euclidian")
    with pytest.raises(UnknownComponentError, match="did you mean 'cosine'"):
        registry.get("metric", "cosin")


def test_kinds_are_apart():
    registry = filled({("metric", BUILTIN, "a")})
    with pytest.raises(UnknownComponentError):
        registry.get("loss", "a")


def test_an_unknown_name_says_which_plugins_failed_to_load():
    registry = filled({("metric", BUILTIN, "cosine")})
    registry.failed["broken"] = "ImportError: no such thing"
    with pytest.raises(UnknownComponentError, match="failed to load: broken"):
        registry.get("metric", "chebyshev")
    assert registry.get("metric", "cosine").name == "cosine"


@pytest.mark.parametrize("name", ["", "Upper", "a/b", " a", "a b", "-a", "a\n"])
def test_a_component_cannot_bear_a_name_that_no_look_up_could_tell_apart(name: str):
    with pytest.raises(ValueError, match="name"):
        Component(name, lambda options: options)
    with pytest.raises(ValueError, match="name"):
        Preset(name, {})


@given(st.text(max_size=10), st.sets(st.text(min_size=1, max_size=10), max_size=6))
def test_the_way_out_lists_every_valid_name(value: str, valid: set[str]):
    text = choose_from(value, valid)
    assert all(name in text for name in valid)
    if value in valid:
        assert f"did you mean '{value}'" in text
    if not valid:
        assert "none" in text


def test_networks_with_weights_are_named_where_their_plugin_is_not_there():
    way_out = "pip install -e plugins/fewshot-pretrained"
    for provider, told in (("asl", True), ("pretrained", False)):
        with pytest.raises(UnknownComponentError) as caught:
            filled({("backbone", provider, "conv9")}).get("backbone", "resnet50")
        assert (way_out in str(caught.value)) == told
