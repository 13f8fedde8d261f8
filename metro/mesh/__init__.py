"""Coarse levels of a mesh and the operators between them; topology checks; closest points."""
