"""How long and how large: the full run, a quick look, and a size that only shows that all works."""

from pathlib import Path

from attrs import frozen


@frozen
class Settings:
    """Sizes that every row reads; problem sizes that are part of a row's definition stay there."""

    rounds: int = 9  # turns of every side, taken alternately
    turn: float = 3.0  # seconds of work in one turn
    pause: float = 0.5  # seconds between turns, in which idle threads stop spinning
    pairs: int = 32  # in a training step
    images: int = 87_000  # in the memory row
    files: int = 87_000  # in the index row
    k_shot: int = 100  # in the memory row
    scale: float = 1.0  # of the largest size in a scaling plot
    photos: Path | None = None  # the ASL photos, where there are any


FULL = Settings()
QUICK = Settings(rounds=3, turn=0.7, pause=0.3, images=6_000, files=3_000, scale=0.25)
TINY = Settings(
    rounds=2, turn=0.0, pause=0.0, pairs=4, images=290, files=60, k_shot=3, scale=0.02
)  # fmt: skip
