"""Tensors from files: a flat dict of them, and nothing that runs."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metro.errors import MetroError
from metro.files import PICKLE, SAFETENSORS, TAR, ZIP, readable, refuse_others

WRAPPERS = ("state_dict", "model", "model_state_dict")
"""Where training code of others keeps the weights in a file that holds more."""

_SAVED = (ZIP, PICKLE, TAR)
"""What `torch.save` has written over the years."""
_PICKLES = 5  # at the head of a file from before 2020, its tensors follow
_LONGEST_NAME = 1000


def load_tensors(path: Path | str, remedy: str = "save the model's state_dict(), or get it again") -> dict[str, Tensor]:
    """Read a flat dict of tensors: safetensors, or any era of `torch.save`, without running code from the file.

    Weights of wrapped networks are taken as well: under ``state_dict`` or ``model``, or with the ``module.`` of
    `DataParallel` before every name.

    Raises
    ------
    MetroError
        Missing, unreadable, or more than tensors.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        with readable(path, remedy, (SAFETENSORS,)):
            return _unwrapped(load_file(path), path, remedy)
    with readable(path, remedy, _SAVED):
        return _unwrapped(load_saved(path, remedy), path, remedy)


def load_saved(path: Path, remedy: str) -> Any:
    """What `torch.save` wrote, if it is plain data and tensors.

    Raises
    ------
    MetroError
        Missing, unreadable, or more than that.
    """
    with readable(path, remedy, _SAVED):
        _check_names(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as err:
            refuse_others(path, remedy, _SAVED)
            why = str(err).partition("WeightsUnpickler error:")[2].strip().partition("\n")[0]
            if re.search("[Gg]lobal|allowlisted|unrecognized function", why):
                raise MetroError(f"{path}: holds more than tensors (a whole pickled model?); {remedy}") from None
            raise ValueError(why) from None  # without torch's advice to load it all the same


def _check_names(path: Path) -> None:
    """Refuse functions and classes of very long names, which torch searches for hours for words of advice."""
    with path.open("rb") as file:
        if zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                pickles = [archive.read(name) for name in archive.namelist() if name.endswith("/data.pkl")]
        elif tarfile.is_tarfile(path):
            return  # of 2016 and earlier
        else:
            file.seek(0)
            pickles = [file.read()]
    for content in pickles:
        stream = io.BytesIO(content)
        for _ in range(_PICKLES):
            for opcode, value, _ in pickletools.genops(stream):
                if opcode.name == "GLOBAL" and len(str(value)) > _LONGEST_NAME:
                    raise ValueError("it names a function by thousands of letters")
            if stream.tell() == len(content):
                break


def _unwrapped(state: Any, path: Path, remedy: str) -> dict[str, Tensor]:
    """The tensors of a state dict, by name."""
    for _ in range(2):  # one within the other at most
        inner = [state[key] for key in WRAPPERS if isinstance(state, Mapping) and isinstance(state.get(key), Mapping)]
        state = inner[0] if inner else state
    if not isinstance(state, Mapping) or not state or not all(isinstance(key, str) for key in state):
        raise MetroError(f"{path}: holds no flat dict of tensors; {remedy}")
    for key, value in state.items():
        if not _is_whole(value):
            raise MetroError(f"{path}: holds no flat dict of tensors ({key!r:.80}); {remedy}")
    wrapped = all(key.startswith("module.") for key in state)
    return {key.removeprefix("module.") if wrapped else key: value for key, value in state.items()}


def _is_whole(value: Any) -> bool:
    """Whether this is a plain tensor whose numbers are all in the file; a view may claim any size."""
    return (
        isinstance(value, Tensor)
        and value.layout == torch.strided
        and value.device.type == "cpu"
        and not value.is_quantized
        and value.numel() * value.element_size() <= value.untyped_storage().nbytes()
    )
