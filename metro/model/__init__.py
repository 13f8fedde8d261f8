"""The METRO network, its losses, its backbones and the adapter for official checkpoints."""
