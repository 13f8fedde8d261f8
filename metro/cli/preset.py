"""`metro preset`: the named sets of parameters."""

from __future__ import annotations

from pathlib import Path

from metro.cli.options import ToFile


def list_presets() -> str:
    """List the presets and what they are for."""
    from metro.presets import summaries

    rows = summaries()
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {text}" for name, text in rows.items())


def show(name: str, /, *, resolved: bool = False) -> str:
    """Print a preset: the file itself, or the whole `params.yaml` it makes.

    Parameters
    ----------
    name
        Preset, as `metro preset list` shows it.
    resolved
        Print the complete parameters instead of the file.
    """
    from metro.presets import render, written

    return render(name) if resolved else written(name)


def apply(name: str, /, *, params: ToFile = Path("params.yaml"), merge: bool = False) -> str:
    """Make `params.yaml` from a preset and say what changed.

    Parameters
    ----------
    name
        Preset, as `metro preset list` shows it.
    params
        File to write.
    merge
        Keep the other values of the present file instead of starting from the defaults.
    """
    from metro import presets

    return presets.apply(name, params, merge)
