"""What must be true of each kind of component, for plugin authors and for the project's own tests.

    from fewshot.testing import check_metric

    def test_the_laws():
        check_metric(chebyshev)

A check raises `LawBroken` with the smallest example of every law that is broken (of several that
one error breaks, the first). How hard it tries is the Hypothesis profile's (`max_examples`,
`derandomize`).
"""

try:
    import hypothesis as _  # noqa: F401
except ModuleNotFoundError as error:
    from ..core.errors import ConfigError

    raise ConfigError("fewshot.testing needs hypothesis: pip install 'fewshot[test]'") from error

from .adapters import check_adapter
from .backbones import check_backbone
from .datasets import check_dataset
from .heads import check_head
from .laws import STEADY, Kind, Law, LawBroken, Outcome, leaving_no_files
from .learners import check_learner
from .losses import check_loss
from .metrics import check_metric
from .miners import check_miner
from .mixers import check_mixer
from .observers import check_observer
from .optimizers import check_optimizer
from .plugins import LAWS, check_plugin, try_part
from .presets import check_preset
from .samplers import check_sampler
from .schedules import check_schedule
from .strategies import (
    batches,
    compared_batches,
    compared_pairs,
    distances,
    labelled,
    plenty,
    points,
    scored_queries,
    supports,
    tasks,
)
from .studies import check_study
from .transforms import check_transform

__all__ = [
    "LAWS",
    "STEADY",
    "Kind",
    "Law",
    "LawBroken",
    "Outcome",
    "batches",
    "check_adapter",
    "check_backbone",
    "check_dataset",
    "check_head",
    "check_learner",
    "check_loss",
    "check_metric",
    "check_miner",
    "check_mixer",
    "check_observer",
    "check_optimizer",
    "check_plugin",
    "check_preset",
    "check_sampler",
    "check_schedule",
    "check_study",
    "check_transform",
    "compared_batches",
    "compared_pairs",
    "distances",
    "labelled",
    "leaving_no_files",
    "plenty",
    "points",
    "scored_queries",
    "supports",
    "tasks",
    "try_part",
]
