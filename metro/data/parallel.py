"""One task per shard through Dask: processes of this machine, or an existing cluster."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from tqdm import tqdm

from metro.errors import MetroError
from metro.kernels import cache_folder
from metro.processes import serve_parent

Job = TypeVar("Job")
Result = TypeVar("Result")
Call = Callable[[], Any]

_THREAD_VARIABLES = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"),
    "OPENCV_FOR_THREADS_NUM",
)


def map_shards(
    function: Callable[[Job], Result],
    jobs: Sequence[Job],
    *,
    scheduler: str | None = None,
    workers: int | None = None,
    progress: bool = True,
    label: str = "shards",
    sizes: Sequence[int] | None = None,
    unit: str = "shard",
) -> list[Result]:
    """Call `function` on every job, in parallel, and return the results in order.

    Parameters
    ----------
    function, jobs
        Both are pickled. A job that raises `MetroError` does not stop the others.
    scheduler
        Address of a running Dask scheduler whose workers see the same file system; none: processes of this machine.
    workers
        Processes of this machine, each with one thread; none: one per available core. One runs in this process.
    progress
        Whether to show a progress bar.
    label
        What the bar is called.
    sizes, unit
        What the bar counts: that many of a job; without sizes, jobs.

    Raises
    ------
    MetroError
        The first that a job raised, after all jobs have ended; a worker process died; the scheduler is not reachable.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(1)  # a worker that is starting runs the script which wanted it: `_pool` tells the cure
    calls: list[Call] = [functools.partial(_attempt, function, job) for job in jobs]
    workers = min(workers or len(os.sched_getaffinity(0)), len(calls))
    sizes = [1] * len(calls) if sizes is None else sizes
    with tqdm(total=sum(sizes), desc=label, unit=unit, disable=not progress) as bar:
        if not any(cache_folder().rglob("*.nbi")):
            bar.set_postfix_str("compiling kernels, once")

        def advance(place: int) -> None:
            bar.set_postfix_str("", refresh=False)
            bar.update(sizes[place])

        if scheduler is not None:
            results = _on_cluster(calls, scheduler, label, advance)
        elif workers > 1:
            results = _on_processes(calls, workers, label, advance)
        else:
            results = []
            for place, call in enumerate(calls):
                results.append(call())
                advance(place)
    for result in results:
        if isinstance(result, MetroError):
            raise result
    return results


def _attempt(function: Callable[[Job], Result], job: Job) -> Result | MetroError:
    """Hand a user-facing error back as a value: Dask would bury its one line in a remote traceback."""
    try:
        return function(job)
    except MetroError as err:
        return err


def _on_processes(calls: list[Call], workers: int, label: str, advance: Callable[[int], None]) -> list[Any]:
    import dask
    from dask.callbacks import Callback

    tasks = [dask.delayed(call, pure=False)() for call in calls]
    places = {task.key: place for place, task in enumerate(tasks)}
    on_done = Callback(posttask=lambda key, *_: advance(places[key]) if key in places else None)
    with _pool(workers, label) as pool, on_done:
        return list(dask.compute(*tasks, scheduler="processes", pool=pool, chunksize=1))


@contextmanager
def _pool(workers: int, label: str) -> Iterator[ProcessPoolExecutor]:
    """Processes that have started, each with one thread for OpenCV and the numeric libraries: they share the cores.

    Left by an exception (Ctrl-C, for one), they are ended in the middle of their work.
    """
    others = multiprocessing.active_children()
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), serve_parent)
    try:
        with _single_threaded_children():
            started = [pool.submit(os.getpid) for _ in range(workers)]
            started[0].result()
        yield pool
    except BrokenProcessPool:
        if started[0].exception() is None:
            problem = "a worker process died, usually for lack of memory; try fewer workers or smaller shards"
        else:
            problem = 'worker processes cannot start; a script that comes here needs `if __name__ == "__main__":`'
        raise MetroError(f"{label}: {problem}") from None
    except BaseException:
        for child in multiprocessing.active_children():
            if child not in others:
                child.kill()
        raise
    finally:
        pool.shutdown()


def _on_cluster(calls: list[Call], scheduler: str, label: str, advance: Callable[[int], None]) -> list[Any]:
    from distributed import Client, KilledWorker, as_completed

    try:
        client = Client(scheduler, timeout="20s")
    except (OSError, TimeoutError, ValueError) as err:
        raise MetroError(f"no Dask scheduler answers at {scheduler}: {' '.join(str(err).split())}") from None
    with client:
        futures = [client.submit(call, pure=False) for call in calls]
        places = {future.key: place for place, future in enumerate(futures)}
        try:
            for done in as_completed(futures):
                advance(places[done.key])
            return list(client.gather(futures))
        except KilledWorker as err:
            raise MetroError(f"{label}: workers of the cluster keep dying: {' '.join(str(err).split())}") from None


@contextmanager
def _single_threaded_children() -> Iterator[None]:
    """One thread for the libraries of every process started meanwhile: the processes share the cores."""
    before = {name: os.environ.get(name) for name in _THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(_THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value
