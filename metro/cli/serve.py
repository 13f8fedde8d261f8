"""`metro serve` and `metro demo`."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from metro.cli.options import Batch, Between, Word

Port = Annotated[int, Parameter(allow_leading_hyphen=True, validator=Between(1, 65535))]
Count = Annotated[int, Parameter(validator=Between(1, 65536))]


def serve(
    *,
    model: Word = "open",
    host: Word = "127.0.0.1",
    port: Port = 8000,
    megabytes: Count = 32,
    megapixels: Count = 32,
    people: Count = 32,
    waiting: Count = 32,
    batch_size: Batch = 16,
    batch_ms: Count = 5,
    device: Word | None = None,
) -> None:
    """Answer predictions over HTTP, and show a page to try them, until Ctrl-C or SIGTERM.

    POST /predict takes a form with pictures; /docs tells how. Nothing is written to disk.

    Parameters
    ----------
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    host
        Address to listen at; 0.0.0.0 lets other machines call, without any password.
    port
        Port to listen at.
    megabytes
        Largest request.
    megapixels
        Largest size of the pictures of a request together.
    people
        Most people in one request.
    waiting
        Requests in hand at once; more are sent away with status 429.
    batch_size
        People per forward pass.
    batch_ms
        Time that a request waits for others to share a forward pass, milliseconds.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    import metro
    from metro.serve.limits import Limits
    from metro.serve.run import listen
    from metro.serve.run import serve as run

    limits = Limits(
        megabytes=megabytes,
        megapixels=megapixels,
        people=people,
        waiting=waiting,
        batch_size=batch_size,
        batch_ms=batch_ms,
    )
    predictor = metro.load(model, device)
    run(predictor, listen(host, port), limits)


def demo(*, model: Word = "open", port: Port = 8000, browser: bool = True, device: Word | None = None) -> None:
    """Open a page in the browser: drop a photo, see the overlay, turn the meshes, download them.

    It is the page of `metro serve`, on this machine alone, until Ctrl-C.

    Parameters
    ----------
    model
        Checkpoint or bundle folder, `open` or `open-hand` for those that ship, or an MLflow models:/ URI.
    port
        Port to listen at.
    browser
        Open the page in the browser; without it its address is told only.
    device
        Where PyTorch runs, e.g. `cuda`; none: ONNX Runtime on the CPU if the model has an ONNX file.
    """
    import metro
    from metro.serve.limits import Limits
    from metro.serve.run import listen
    from metro.serve.run import serve as run

    predictor = metro.load(model, device)
    run(predictor, listen("127.0.0.1", port), Limits(), browser=browser)
