"""Tensors from files of others: a flat dict of them, and nothing that runs."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from metro.errors import MetroError


def load_tensors(path: Path | str) -> dict[str, Tensor]:
    """Read a flat dict of tensors: safetensors, or any era of `torch.save`, without running code from the file.

    Raises
    ------
    MetroError
        Missing, unreadable, or more than tensors.
    """
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise MetroError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise MetroError(f"{path}: a folder; give the state dict file in it") from None
    except pickle.UnpicklingError:
        raise MetroError(
            f"{path}: holds more than tensors (a whole pickled model?); save its state_dict() instead"
        ) from None
    except Exception as err:  # zip, pickle and safetensors readers each raise their own
        raise MetroError(f"{path}: not a readable state dict ({' '.join(str(err).split())[:120]})") from None
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise MetroError(f"{path}: holds no flat dict of tensors; save the model's state_dict()")
    return dict(state)
