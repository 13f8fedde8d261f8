"""The tracked runs that made the outputs in ``dvc.lock``: ``python -m pipeline.link``.

Prints the page of each stage's run, or its id where no MLflow UI is known (``MLFLOW_UI``), as JSON.
"""

from __future__ import annotations

import json

from metro.config import Params
from pipeline import stage
from pipeline.tracking import lineage


def main(params: Params) -> None:
    """Say where they are."""
    print(json.dumps({name: lineage.run_url(run_id) or run_id for name, run_id in lineage.runs().items()}, indent=1))


if __name__ == "__main__":
    stage.run(main)
