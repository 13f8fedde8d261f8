"""The command line: one module per topic, put together in `metro.cli.app`.

These modules import nothing heavy at their top, so that help is shown at once: a command imports what it needs when it
runs.
"""
