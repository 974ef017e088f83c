"""Losses: functions of distances or scores, whose values training averages."""

from . import around, batches, pairs, scores, triplets

COMPONENTS = (
    *pairs.COMPONENTS,
    *triplets.COMPONENTS,
    *scores.COMPONENTS,
    *batches.COMPONENTS,
    *around.COMPONENTS,
)
