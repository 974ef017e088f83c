"""K-shot training: embedders fitted to a support set, for new classes."""

from . import copies, linear, steps, whitening

COMPONENTS = (
    *copies.COMPONENTS,
    *steps.COMPONENTS,
    *linear.COMPONENTS,
    *whitening.COMPONENTS,
)
