"""One thread for MLX beside the main one, whatever pool of threads asks.

MLX gives every thread that uses it streams of its own, each with a thread behind it, and never
takes them back: a server that answers each request on a new thread would gather them without end.
"""

import functools
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_NAME = "fewshot-mlx"


@functools.cache
def _own() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, _NAME)


def one_at_a_time(function: Callable[P, T]) -> Callable[P, T]:
    """The function where the main thread calls it; called by any other, it runs on MLX's own.

    Those wait for each other there. Arrays that are given to it must have been computed.
    """

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        here = threading.current_thread()
        if here is threading.main_thread() or here.name.startswith(_NAME):
            return function(*args, **kwargs)
        return _own().submit(function, *args, **kwargs).result()

    return called
