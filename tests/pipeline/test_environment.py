"""The variables that the pipeline looks at: what they mean, and what an empty or foreign one means."""

from __future__ import annotations

import pytest

from pipeline.environment import environment


@pytest.mark.parametrize(("written", "on"), [("", True), ("on", True), ("off", False), ("OFF", False), ("0", False)])
def test_tracking_is_on_unless_switched_off(written: str, on: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRO_TRACKING", written)
    assert environment().tracking is on


def test_an_empty_variable_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("METRO_DASK", "DVC_ROOT", "PREFECT_PORT", "RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "")
    told = environment()
    assert (told.dask, told.root, told.prefect_port, told.rank) == (None, None, "4200", 0)


def test_a_port_that_a_cluster_set_for_its_own_service_concerns_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PORT", "tcp://10.0.0.1:5000")  # as Kubernetes does for a service called mlflow
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert environment().rank == 1
