"""Tag the tracked runs with the md5 of the outputs that ``dvc.lock`` now holds: ``python -m pipeline.link``."""

from __future__ import annotations

from metro.config import Params
from pipeline import stage, tracking


def main(params: Params) -> None:
    """Link what there is to link."""
    for name, run_id in tracking.link().items():
        print(f"{name}: run {run_id}")


if __name__ == "__main__":
    stage.run(main)
