"""What a training ran on: package versions that decide its result, and the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "scikit-learn",
    "scipy",
    "skl2onnx",
    "skops",
    "steward",
    "threadpoolctl",
)
"""Packages whose version may change a trained artifact or its answers."""


def packages() -> dict[str, str]:
    """Installed versions of Python and of the packages that decide a training's result."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def machine() -> dict[str, str]:
    """Hardware and operating system; floating-point results may differ between two of them."""
    return {
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
        "processor": _processor(),
        "cores": str(os.cpu_count() or 1),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a file of ours
            return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"
