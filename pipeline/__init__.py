"""One thin module per DVC stage: read ``params.yaml``, call `metro`, write the stage's outputs, track the run."""
