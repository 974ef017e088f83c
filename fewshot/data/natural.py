"""The order of names in which A2 is before A10."""

import re
from typing import Any

_NUMBER = re.compile(r"(\d+)")


def natural(name: str) -> list[Any]:
    """Sort key that puts A2 before A10."""
    parts: list[Any] = _NUMBER.split(name)
    parts[1::2] = [(int(digits), digits) for digits in parts[1::2]]
    return parts
