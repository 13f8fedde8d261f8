"""Environment variables about the services beside the pipeline, for those that use them and for `metro doctor`."""

from __future__ import annotations

import os
import re

PORTS = {"PREFECT_PORT": "4200", "MLFLOW_PORT": "5000"}
"""Where `make serve` puts the servers: variable and default."""


def tracked() -> bool:
    """``METRO_TRACKING``: `off`, `0`, `false` or `no` goes without MLflow."""
    return os.environ.get("METRO_TRACKING", "").lower() not in ("off", "0", "false", "no")


def store() -> str | None:
    """``MLFLOW_TRACKING_URI``: MLflow store; without it a SQLite file in the project."""
    return os.environ.get("MLFLOW_TRACKING_URI") or None


def port(variable: str) -> str:
    """Port of one of `PORTS`, as it is written."""
    return os.environ.get(variable) or PORTS[variable]


def port_number(written: str) -> int | None:
    """The port that is meant; None if that is no number from 1 to 65535."""
    number = int(written) if re.fullmatch("[0-9]{1,5}", written) else 0
    return number if 0 < number < 65536 else None
