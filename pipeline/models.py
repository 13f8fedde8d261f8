"""Models that MLflow keeps, as folders: the resolver of ``models:/`` and ``runs:/`` behind `metro.load`."""

from __future__ import annotations

from pathlib import Path

from metro.errors import MetroError
from pipeline.tracking.store import connect, is_there, store_uri


def download(uri: str) -> Path:
    """Fetch the files of a registered or logged model (``models:/NAME/VERSION``, ``runs:/RUN/PATH``).

    Raises
    ------
    MetroError
        There is no store, which is not made by asking, or it has no such model.
    """
    if not is_there():
        raise MetroError(f"{uri}: no MLflow store at {store_uri()} yet; set MLFLOW_TRACKING_URI, or give a folder")
    connect()
    from mlflow.artifacts import download_artifacts

    try:
        return Path(download_artifacts(uri))
    except Exception as err:  # whatever a damaged store makes MLflow raise
        why = " ".join(str(err).split())[:200]
        raise MetroError(f"{uri}: MLflow cannot provide it ({why}); check the name and MLFLOW_TRACKING_URI") from None
