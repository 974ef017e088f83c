"""MLX made fast before anything imports it, and how hard Hypothesis tries."""

import os

from hypothesis import settings

from fewshot import runtime

runtime.prepare()

settings.register_profile("quick", derandomize=True, max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))
