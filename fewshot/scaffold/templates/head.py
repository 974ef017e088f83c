"""The head PLUGIN_NAME: every support image votes, the nearer the more."""

import mlx.core as mx
from attrs import frozen
from fewshot import Component, Head, Metric, above, hookimpl, option


@frozen
class Options:
    """Options of the head."""

    temperature: float = option(
        0.1, "distances are divided by it: less, and nearness counts more", above(0)
    )


def head(options: Options) -> Head:
    """Log of a class's share of softmax(−distance / T): Vinyals et al. 2016, eq. 1."""

    def fit(
        support: mx.array, support_labels: mx.array, metric: Metric, n_way: int
    ) -> tuple[mx.array, mx.array]:
        """What is kept of a support: its embeddings, and which class each is of."""
        of_class = support_labels[..., None] == mx.arange(n_way)
        return support, of_class.astype(support.dtype)

    def scores(
        state: tuple[mx.array, mx.array], query: mx.array, metric: Metric
    ) -> mx.array:
        support, of_class = state
        votes = mx.softmax(-metric.table(query, support) / options.temperature, axis=-1)
        return mx.log(mx.maximum(votes @ of_class, 1e-12))

    return Head(fit, scores, differentiable=True)


@hookimpl
def fewshot_heads() -> list[Component]:
    return [Component("PLUGIN_NAME", head, Options, "votes by nearness")]
