"""Which pairs or triplets of a batch a loss learns from."""

from ..core.components import Component
from ..core.interfaces import Miner
from ..core.options import NoOptions


def none(_: NoOptions = NoOptions()) -> Miner:
    """All that the sampler draws."""
    return Miner(None)


COMPONENTS = (Component("none", none, summary="every pair or triplet that the sampler draws"),)
