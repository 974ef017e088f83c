"""MLX made fast before anything imports it."""

from fewshot import prepare

prepare()
