"""Pictures: a rasteriser, overlays, plots and the report."""
