"""SMPLify: pseudo-meshes from 2D or 3D joints, for datasets that have no meshes."""
