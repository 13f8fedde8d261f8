"""Prefect flows: they orchestrate the stages of ``dvc.yaml`` and know nothing of what the stages do."""
