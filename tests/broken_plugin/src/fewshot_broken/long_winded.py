"""Raises an error of ten thousand words, with control characters."""

raise RuntimeError("\x1b[31mno\n" * 10_000)
