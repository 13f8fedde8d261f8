"""Open a trained network by path or tracking URI."""

from __future__ import annotations

from pathlib import Path

from metro.errors import MetroError
from metro.export.bundle import META, Bundle, from_checkpoint, load_bundle
from metro.training.checkpoint import META as CHECKPOINT_META

TRACKED = ("models:/", "runs:/")
"""Beginnings of URIs that name a model kept by MLflow."""


def open_bundle(source: Path | str) -> Bundle:
    """Bundle of a bundle folder, a checkpoint folder, `open` (the checkpoint that ships), or an MLflow model URI.

    Raises
    ------
    MetroError
        Nothing usable is there, or MLflow is needed and not installed.
    """
    if str(source).startswith(TRACKED):
        return open_bundle(_download(str(source)))
    if str(source) == "open":
        return from_checkpoint("open")
    folder = Path(source)
    if (folder / META).is_file():
        return load_bundle(folder)
    if (folder / CHECKPOINT_META).is_file():
        return from_checkpoint(folder)
    if not folder.exists():
        raise MetroError(f"{folder}: no such folder; give a checkpoint or bundle folder, `open`, or a models:/ URI")
    raise MetroError(f"{folder}: neither a bundle ({META}) nor a checkpoint ({CHECKPOINT_META})")


def _download(uri: str) -> Path:
    try:
        from mlflow.artifacts import download_artifacts
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise MetroError(f"{uri}: needs MLflow, which is not installed; `pip install mlflow`, or give a path") from None
    try:
        folder = Path(download_artifacts(uri))
    except (MlflowException, OSError) as err:
        why = " ".join(str(err).split())[:200]
        raise MetroError(f"{uri}: MLflow cannot provide it ({why}); check the name and MLFLOW_TRACKING_URI") from None
    # A tracked model keeps the folder it was logged from among its files.
    found = [path.parent for name in (META, CHECKPOINT_META) for path in sorted(folder.rglob(name))]
    return found[0] if found else folder
