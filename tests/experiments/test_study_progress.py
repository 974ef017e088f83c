"""What a study tells of the time that is left."""

from pathlib import Path

import pytest
from small_runs import PER_CLASS, write_images

from fewshot.catalogue.loading import build_registry
from fewshot.core.components import Study
from fewshot.experiments.study import run_study


@pytest.mark.parametrize(("steps", "told"), [(2, False), (0, True)])
def test_what_is_left_is_told_by_steps_or_where_no_run_has_any_by_runs(
    steps: int, told: bool, tmp_path: Path
):
    study = Study(
        "small",
        rows={
            "as-it-is": {"training": {"steps": 0}},
            "last": {"metric": "cosine", "training": {"steps": steps}},
        },
        base={
            "dataset": {
                "name": "image-folder",
                "path": str(write_images(tmp_path / "images", dict.fromkeys("abcdefg", PER_CLASS))),
                "size": 16,
            },
            "backbone": {"name": "conv4", "width": 4},
            "split": {"val_fraction": 0.3, "test_fraction": 0.3},
            "evaluation": {"k_shot": [1], "repeats": 2, "pairs": 50},
        },
        seeds=1,
    )
    said: list[str] = []

    def tell(stage: str, done: int, total: int, status: str, line: str) -> None:
        said.append(line)

    run_study(study, build_registry()[0], tmp_path / "out", progress=tell)
    first, second = (line for line in said if "seed 0" in line)
    assert "left" not in first
    assert ("left" in second) is told
