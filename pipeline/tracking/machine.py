"""What a run computes with: packages, processor, kernels of the linear algebra, GPUs. Rounding hangs on it."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import distributions
from pathlib import Path
from typing import Any


def machine() -> dict[str, Any]:
    """Facts about this machine and its Python, nested; the machine itself is not named."""
    import torch
    from threadpoolctl import threadpool_info

    pools = [
        {
            "library": pool["internal_api"],
            "version": pool["version"],
            "kernel": pool.get("architecture"),
            "threads": pool["num_threads"],
        }
        for pool in threadpool_info()
    ]
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,  # with its build, unlike the package
        "system": f"{platform.system()} {platform.release()}",
        "packages": {dist.name: dist.version for dist in sorted(distributions(), key=lambda dist: dist.name.lower())},
        "processor": {
            "model": _processor() or platform.machine(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "torch_kernels": torch.backends.cpu.get_cpu_capability(),
            "torch_threads": torch.get_num_threads(),
        },
        "thread_pools": pools,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "variables": {key: value for key, value in sorted(os.environ.items()) if key in VARIABLES},
    }


VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "MKL_NUM_THREADS",
    "NPY_DISABLE_CPU_FEATURES",
    "NUMBA_NUM_THREADS",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_NUM_THREADS",
)
"""Environment variables that choose kernels or threads."""


def summary(facts: dict[str, Any]) -> dict[str, str]:
    """The facts that runs are told apart by, as tags."""
    packages, processor = facts["packages"], facts["processor"]
    kernels = sorted({f"{pool['library']} {pool['kernel']}" for pool in facts["thread_pools"] if pool["kernel"]})
    tags = {
        "python": facts["python"],
        "torch": facts["torch"],
        "numpy": packages["numpy"],
        "processor": processor["model"],
        "kernels": ", ".join([f"torch {processor['torch_kernels']}", *kernels]),
        "threads": processor["torch_threads"],
        "gpu": ", ".join(facts["gpus"]) or "none",
    }
    return {f"env.{key}": str(value) for key, value in tags.items()}


def _processor() -> str | None:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)
