"""Wrong components, each with the law it breaks, and unusual ones that break none."""

from collections.abc import Callable
from typing import Any

from attrs import frozen

from fewshot.core.options import NoOptions


@frozen
class Case:
    """A factory with its options; `law` is what it breaks, "" where it breaks none."""

    kind: str
    name: str
    factory: Any
    options: Any = NoOptions()
    law: str = ""


class Collection(list[Case]):
    """The cases of one kind, collected by decorators."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def breaks(self, law: str, options: Any = NoOptions()) -> Callable[[Any], Any]:
        """The function is a factory that breaks a law."""

        def collect(factory: Any) -> Any:
            self.append(Case(self.kind, factory.__name__, factory, options, law))
            return factory

        return collect

    def sound(self, factory: Any) -> Any:
        """The function is a factory that breaks none, though it is unusual."""
        self.append(Case(self.kind, factory.__name__, factory))
        return factory
