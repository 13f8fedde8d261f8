"""Coarse levels of a mesh and the operators between them; topology checks; closest points."""

from metro.mesh.sampling import Level, build_sampling, compose_indices, compose_up, load_sampling, save_sampling

__all__ = ["Level", "build_sampling", "compose_indices", "compose_up", "load_sampling", "save_sampling"]
