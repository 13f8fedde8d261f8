"""Raw datasets and synthetic people → HDF5 shards → training batches."""
