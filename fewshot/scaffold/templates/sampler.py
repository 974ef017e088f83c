"""The sampler PLUGIN_NAME: episodes whose number of classes differs."""

from attrs import frozen
from fewshot import (
    Component,
    Episode,
    EpisodesOptions,
    Ints,
    Sampler,
    at_least,
    episodes,
    generator,
    hookimpl,
    option,
)


@frozen
class Options:
    """Options of the sampler."""

    least: int = option(2, "fewest classes in an episode", at_least(2))
    most: int = option(4, "most classes in an episode", at_least(2))
    k_shot: int = option(1, "support images per class", at_least(1))
    n_query: int = option(3, "query images per class", at_least(1))


def sampler(
    options: Options,
    labels: Ints,
    groups: Ints | None = None,
) -> Sampler[Episode]:
    """Episodes of `least` to `most` classes: (seed, index) decides how many."""
    of_ways = [
        episodes(EpisodesOptions(n, options.k_shot, options.n_query), labels, groups)
        for n in range(options.least, options.most + 1)
    ]

    def draw(seed: int, index: int) -> Episode:
        rng = generator(seed, "PLUGIN_NAME", index)
        return of_ways[rng.integers(len(of_ways))].draw(seed, index)

    return Sampler(draw=draw, layout="episode")


@hookimpl
def fewshot_samplers() -> list[Component]:
    return [Component("PLUGIN_NAME", sampler, Options, "episodes of 2 to 4 classes")]
