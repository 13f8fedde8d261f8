"""METRO: image to 3D joints and full mesh, as a reproducible pipeline (Lin, Wang, Liu, CVPR 2021)."""

__version__ = "0.1.0"
