"""`metro study`: the studies of ``params.yaml``."""

from __future__ import annotations

from pathlib import Path

from metro.cli.options import ToFile


def plan(*, params: ToFile = Path("params.yaml")) -> str:
    """List the runs of `studies` in `params.yaml`, where DVC finds them; after each change of a study.

    Parameters
    ----------
    params
        File to change.
    """
    from metro import presets

    return presets.plan(params)
