"""A hook that raises."""

from fewshot import hookimpl


@hookimpl
def fewshot_losses():
    raise RuntimeError("raised in the hook\nand on a second line")
