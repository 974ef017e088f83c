"""What this machine gives a process: cores and memory it may use, its user's caches."""

import contextlib
import os
from pathlib import Path


def cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: its affinity, and its container's share of time."""
    linux = hasattr(os, "sched_getaffinity")
    count = len(os.sched_getaffinity(0)) if linux else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = cpu_max.read_text().split()
        count = min(count, max(1, round(int(quota) / int(period))))
    return count


def memory(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """Bytes of memory that this process may use: the machine's, or its container's share."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):
        total = min(total, int(limit.read_text()))
    return total


def user_cache() -> Path:
    """Where this user's caches belong, made or not. Raises OSError without a home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fewshot"
    except RuntimeError as error:
        raise OSError(str(error)) from error
