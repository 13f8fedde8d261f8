"""Models that MLflow keeps, as folders: the resolver of ``models:/`` and ``runs:/`` behind `metro.load`."""

from __future__ import annotations

from pathlib import Path

from metro.errors import MetroError
from pipeline.tracking import store_uri


def download(uri: str) -> Path:
    """Fetch the files of a registered or logged model (``models:/NAME/VERSION``, ``runs:/RUN/PATH``).

    Raises
    ------
    MetroError
        There is no store, which is not made by asking, or it has no such model.
    """
    store = store_uri()
    database = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:") and not database.is_file():
        raise MetroError(f"{uri}: no MLflow store at {database} yet; set MLFLOW_TRACKING_URI, or give a folder")
    import mlflow
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(store)
    try:
        return Path(download_artifacts(uri))
    except (MlflowException, OSError) as err:
        why = " ".join(str(err).split())[:200]
        raise MetroError(f"{uri}: MLflow cannot provide it ({why}); check the name and MLFLOW_TRACKING_URI") from None
