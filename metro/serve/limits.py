"""What one request may cost, and how much work may wait."""

from __future__ import annotations

from dataclasses import dataclass

WORKERS = 4
"""Requests whose pictures are decoded, predicted and drawn at once: each may hold its pixels in memory, and those that
wait for the network at the same time share a forward pass."""


@dataclass(frozen=True)
class Limits:
    """Bounds of a server. Memory is bounded by them: `waiting` bodies and `WORKERS` decoded requests."""

    megabytes: int = 32
    """Size of a request, 2^20 bytes."""
    megapixels: int = 32
    """Size of the pictures of a request together, 10^6 pixels."""
    people: int = 32
    """People of a request."""
    waiting: int = 32
    """Requests that are being read, wait or are worked on; more are sent away (429)."""
    seconds: float = 30.0
    """Time for a request to arrive."""
    batch_size: int = 16
    """People per forward pass."""
    batch_ms: int = 5
    """Time that the first request of a batch waits for others, milliseconds."""

    @property
    def bytes(self) -> int:
        """Size of a request."""
        return self.megabytes << 20
