"""Few-shot classifiers: from a labelled support set and queries to scores."""

from . import learned, linear, nearest, prototypes, transductive

COMPONENTS = (
    *prototypes.COMPONENTS,
    *nearest.COMPONENTS,
    *linear.COMPONENTS,
    *transductive.COMPONENTS,
    *learned.COMPONENTS,
)
