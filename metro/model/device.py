"""Where to compute, by name."""

from __future__ import annotations

import torch

from metro.errors import MetroError


def device_of(name: torch.device | str | None) -> torch.device:
    """The device of a name (`cpu`, `cuda`, `cuda:1`, …); without one a GPU if there is one.

    Raises
    ------
    MetroError
        There is no such device on this machine.
    """
    try:
        device = torch.device(name or ("cuda" if torch.cuda.is_available() else "cpu"))
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as err:
        first = str(err).partition("\n")[0][:200]
        raise MetroError(f"device {str(name)!r}: not on this machine ({first}); `cpu` always is") from None
    return device
