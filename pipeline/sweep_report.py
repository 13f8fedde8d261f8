"""Stage `sweep-report`: the swept models on one benchmark, as a curve over the masking ratio.

The ratios are those of the parameters, not those of the folder: a ratio that was dropped leaves its model behind.
"""

from __future__ import annotations

from typing import Any

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage, tracking
from pipeline.evaluate import judge
from pipeline.paths import METRICS, MODEL, SWEEP_REPORT, sweep


def main(params: Params) -> None:
    """Judge every swept model, and draw the curve."""
    from metro.viz.plots import ratio_curve

    if not params.benchmarks:
        raise MetroError("sweep.benchmark: no benchmark to judge the sweep on; name one in `benchmarks`")
    name = params.sweep.benchmark or next(iter(params.benchmarks))
    if name not in params.benchmarks:
        raise MetroError(f"sweep.benchmark: no benchmark {name!r}; known: {', '.join(params.benchmarks)}")
    swept = {ratio: f"sweep@{sweep(ratio).name}" for ratio in sorted(params.sweep.ratios)}
    with tracking.joined(params, swept[max(swept)], parent=True) as run:
        rows: list[dict[str, Any]] = []
        for ratio, made_by in swept.items():
            result, _ = judge(sweep(ratio) / MODEL.name, name, params)
            rows.append({"ratio": ratio, **result.headline(), "metrics": result.summary["metrics"]})
            numbers = {f"{name}/{key}": value for key, value in result.headline().items()}
            run.log(numbers, step=round(100 * ratio))  # a curve over the ratio, in per cent
            with tracking.joined(params, made_by, makes=False) as short:
                short.log(numbers)
        first = result.protocol.headline[0]
        with stage.publish(SWEEP_REPORT) as folder:
            entries = [row["metrics"][first] for row in rows]
            about = {"benchmark": name, "metric": first, "label": entries[0]["label"], "unit": entries[0]["unit"]}
            points = [{"ratio": row["ratio"], **entry} for row, entry in zip(rows, entries, strict=True)]
            picture = ratio_curve(
                [row["ratio"] for row in rows],
                [entry["value"] for entry in entries],
                [entry["ci95"] for entry in entries],
                folder / "ratios.png",
                label=about["label"],
                unit=about["unit"],
            )
            stage.write_json(folder / "sweep.json", {**about, "steps": params.sweep.steps, "points": points})
            run.artifact(picture, "figures")
        best = min(points, key=lambda point: point["value"])
        run.log({"best/ratio": best["ratio"], f"best/{name}/{first}_{about['unit']}": best["value"]})
    errors = {f"{row['ratio']:g}": {k: v for k, v in row.items() if k.endswith("_mm")} for row in rows}
    stage.write_json(METRICS / "sweep.json", errors)


if __name__ == "__main__":
    stage.run(main)
