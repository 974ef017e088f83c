"""What each part is: the records and protocols of `core.interfaces`, by their public path."""

from .core.interfaces import *  # noqa: F403
