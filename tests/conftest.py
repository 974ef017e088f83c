"""MLX made fast before anything imports it, and how hard Hypothesis tries."""

import os
from collections.abc import Iterator

import pytest
from hypothesis import settings

from fewshot import runtime

runtime.prepare()

settings.register_profile("quick", derandomize=True, max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Decoded images are not kept among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEWSHOT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield
