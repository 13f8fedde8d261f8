"""The stage graph, read from DVC.

`Repo.index` is not a promised interface of DVC, so it is touched here alone; a test holds the result against the edges
that ``dvc dag --mermaid`` prints.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from metro.errors import MetroError
from metro.files import nearest

Dag = Mapping[str, Sequence[str]]
"""Stage to the stages it needs."""


def read_dag(root: Path | str = ".") -> dict[str, list[str]]:
    """Every stage with the stages it needs, in an order in which they can run.

    Raises
    ------
    MetroError
        ``dvc.yaml`` or ``params.yaml`` is missing or wrong, or the folder is not a DVC repository.
    """
    import networkx as nx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(root)) as repo:
            graph = repo.index.graph
            # Not `addressing`, which depends on the working directory.
            names = {stage: getattr(stage, "name", None) or stage.addressing for stage in graph}
            return {
                names[stage]: sorted(names[needed] for needed in graph.successors(stage))
                for stage in reversed(list(nx.lexicographical_topological_sort(graph, key=names.__getitem__)))
            }
    except DvcException as err:
        raise MetroError(f"dvc.yaml: {' '.join(str(err).split())}") from None


def needed_for(dag: Dag, targets: Iterable[str]) -> dict[str, list[str]]:
    """The part of the graph that `targets` need; a name without ``@`` stands for all items of that stage.

    Raises
    ------
    MetroError
        A target is no stage.
    """
    pending: list[str] = []
    for target in targets:
        named = [stage for stage in dag if stage == target or stage.partition("@")[0] == target]
        if not named:
            raise MetroError(f"no stage {target!r}; {nearest(target, dag)}")
        pending += named
    wanted: set[str] = set()
    while pending:
        stage = pending.pop()
        if stage not in wanted:
            wanted.add(stage)
            pending += dag[stage]
    return {stage: list(needs) for stage, needs in dag.items() if stage in wanted}
