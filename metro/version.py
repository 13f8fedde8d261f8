"""The version; apart from the package's root, which imports upwards when `metro.load` is called."""

__version__ = "0.1.0"
