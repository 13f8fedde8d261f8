"""Export: deployable bundles, ONNX and torch.export programs, and the predictor."""
