"""Work on all cores while the caller sees how far it is."""

import warnings
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from PIL import Image

from ..core.errors import DataError
from ..core.machine import cores
from ..core.progress import Counting

_BATCH = 16  # images that a thread decodes in one go

T = TypeVar("T")


def on_all_cores(
    read: Callable[[int], T],
    rows: Sequence[int],
    put: Callable[[int, T], None],
    progress: Counting | None,
    total: int | None = None,
) -> None:
    """`put(row, read(row))` for all rows, in order; reading on all cores.

    `progress(done, total)` counts what is done already of a larger `total`. DataErrors of `read`
    and `put` do not end it, but are raised as one when all else is done.
    """
    errors: list[str] = []
    total = len(rows) if total is None else total
    done = total - len(rows)

    def attempt(batch: Sequence[int]) -> list[T | DataError]:
        results: list[T | DataError] = []
        for row in batch:
            try:
                results.append(read(row))
            except DataError as error:
                results.append(DataError(str(error)))  # a traceback would keep what was read
        return results

    def take(batch: Sequence[int], results: list[T | DataError]) -> None:
        nonlocal done
        for row, result in zip(batch, results, strict=True):
            if isinstance(result, DataError):
                errors.append(str(result))
            else:
                try:
                    put(row, result)
                except DataError as error:
                    errors.append(str(error))
            done += 1
            if progress is not None:
                progress(done, total)

    count = cores()
    waiting: deque[tuple[Sequence[int], Future[list[T | DataError]]]] = deque()
    with warnings.catch_warnings(), ThreadPoolExecutor(count) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # max_pixels decides
        try:
            for start in range(0, len(rows), _BATCH):
                batch = rows[start : start + _BATCH]
                waiting.append((batch, pool.submit(attempt, batch)))
                if len(waiting) > 2 * count:
                    batch, future = waiting.popleft()
                    take(batch, future.result())
            while waiting:
                batch, future = waiting.popleft()
                take(batch, future.result())
        finally:
            for _, future in waiting:
                future.cancel()
    if errors:
        listed = "; ".join(errors[:5])
        more = f" (and {len(errors) - 5} more)" if len(errors) > 5 else ""
        raise DataError(f"{listed}{more}: mend or remove, then run again")
