"""What the figures were measured on."""

import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from .worker import Turn

PACKAGES = ("fewshot", "fewshot-asl", "mlx", "numpy", "torch", "torchvision", "easyfsl")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def describe() -> tuple[dict[str, Any], Turn]:
    """Facts only. Imported by a worker: `prepare` must not act on the driver."""
    import fewshot as fs

    runtime = fs.prepare()
    facts = {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": fs.cores(),
        "backend": runtime.backend,
        "BLAS": runtime.blas,
        "BLAS threads": runtime.threads,
        "malloc tuned": runtime.malloc_tuned,
        "Python": ".".join(map(str, sys.version_info[:3])),
        "versions": {package: _version(package) for package in PACKAGES},
    }
    return facts, lambda n: {"each": 0.0}
