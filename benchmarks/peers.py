"""Libraries to compare with, which may not be installed."""

import importlib
from typing import Any


class PeerMissingError(Exception):
    """What a side is made with cannot be imported."""


def need(name: str) -> Any:
    """The module of a peer; PeerMissingError where it cannot be imported, for whatever reason."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # a build that does not fit raises other errors than ImportError
        reason = str(error).partition("\n")[0]
        raise PeerMissingError(f"{name} cannot be imported ({reason})") from error
