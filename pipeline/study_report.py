"""Stage `study-report@STUDY`: the runs of a study compared with its reference variant, person by person.

The variants are those of the parameters, not those of the folder: one that was dropped leaves its results behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from metro.config import Params
from metro.files import read_arrays, readable
from pipeline import stage, tracking
from pipeline.paths import COSTS, STUDIES, STUDY_REPORTS


def main(params: Params, name: str) -> None:
    """Compare, draw and tabulate."""
    from metro.evaluation.evaluate import Result
    from metro.evaluation.studies import COST, NAMES, headline, people_of, summarise, table

    study = params.studies[name]
    places = {variant: [Path(name, f"{variant}-{seed}") for seed in study.seeds] for variant in study.variants}
    remedy = f"`dvc repro study-report@{name}` makes it"
    results = {variant: [Result.read(STUDIES / place) for place in of] for variant, of in places.items()}
    costs = {variant: stage.read_json(STUDIES / of[0] / COST, f"study-report@{name}") for variant, of in places.items()}
    named = STUDIES / places[study.reference][0] / NAMES
    with readable(named, remedy):
        names = [key.decode(errors="replace") for key in read_arrays(named, remedy)["names"].tolist()]
    summary = summarise(name, study, results, costs, people_of(names, study.people))
    first = next(iter(study.variants))
    with tracking.joined(params, f"study@{name}-{first}-{study.seeds[0]}", parent=True) as run:
        with stage.publish(STUDY_REPORTS / name) as folder:
            stage.write_json(folder / "study.json", summary)
            (folder / "table.md").write_text(table(summary) + "\n", encoding="utf-8")
            draw(summary, folder / "study.png")
            for path in sorted(folder.iterdir()):
                run.artifact(path, "study")
        run.log(headline(summary))
    stage.write_metrics(f"study-report/{name}", headline(summary))
    print(table(summary, spent(places)), summary["verdict"], sep="\n")


def draw(summary: Mapping[str, Any], path: Path) -> Path:
    """The figure: lines where all variants, or all but the reference, have numbers; rows where they have none."""
    from metro.viz.plots import Measured, variant_lines, variant_rows

    key, reference = summary["ranked_by"], summary["reference"]
    found = {
        v["name"]: Measured(*(v["metrics"][key][field] for field in ("value", "ci95", "seeds")))
        for v in summary["variants"]
    }
    about = {field: summary["metrics"][key][field] for field in ("label", "unit")}
    lines: dict[str, dict[float, Measured]] = {}
    for variant in summary["variants"]:
        if variant["line"] is not None:
            lines.setdefault(variant["line"], {})[variant["at"]] = found[variant["name"]]
    placed = all(v["line"] is not None for v in summary["variants"] if v["name"] != reference)
    if placed and reference not in lines:  # it would be taken for the line of its name
        return variant_lines(lines, (reference, found[reference]), path, axis=summary["axis"], **about)
    return variant_rows(found, reference, path, **about)


def spent(places: Mapping[str, list[Path]]) -> dict[str, dict[str, float]]:
    """What the runs of each variant took on this machine, means over those that were made here."""
    taken: dict[str, dict[str, float]] = {}
    for variant, runs in places.items():
        known = [stage.read_json(COSTS / f"{run}.json", "study") for run in runs if (COSTS / f"{run}.json").is_file()]
        if known:
            taken[variant] = {key: sum(cost[key] for cost in known) / len(known) for key in known[0]}
    return taken


if __name__ == "__main__":
    stage.run(main)
