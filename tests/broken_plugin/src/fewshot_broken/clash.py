"""Sound, but its names are those of others."""

from fewshot import Component, cosine, hookimpl


@hookimpl
def fewshot_metrics():
    return [
        Component("euclidean", lambda options: cosine(), summary="a cosine that says euclidean"),
        Component("shared-metric", lambda options: cosine(), summary="also offered by good"),
    ]
