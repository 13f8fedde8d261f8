"""ONNX Runtime on the CPU: loaded when it is first needed, and opened the same way everywhere."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


def open_session(model: Path | bytes, threads: int | None = None) -> InferenceSession:
    """Open an ONNX model.

    Parameters
    ----------
    model
        Its file, or the content of one.
    threads
        None: as many as this process has processors.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors, which are raised as well
    options.intra_op_num_threads = threads or len(os.sched_getaffinity(0))
    # Threads that wait by spinning take the processor from whatever else runs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
