"""The predictor over HTTP, and a page to try it: `metro serve` and `metro demo`."""
