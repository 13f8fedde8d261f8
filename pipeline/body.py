"""Stage `body`: the body (or hand) model that everything is expressed in, checked and in one layout."""

from __future__ import annotations

from metro.config import Params
from pipeline import stage
from pipeline.paths import BODY, BODY_INFO


def main(params: Params) -> None:
    """Load the model, check that it is whole, and write it with its facts."""
    from metro.body.arrays import digest, save_body
    from metro.body.load import load_body
    from metro.mesh.topology import euler, is_watertight

    data = load_body(params.body)
    info = {
        "kind": data.kind,
        "gender": data.gender,
        "vertices": len(data.v_template),
        "faces": len(data.faces),
        "joints": len(data.parents),
        "betas": data.shapedirs.shape[-1],
        "height_m": round(float(data.v_template[:, 1].max() - data.v_template[:, 1].min()), 4),
        "watertight": is_watertight(data.faces),
        "euler": euler(data.faces),
        "regressors": {name: int(rows.shape[0]) for name, rows in data.regressors.items()},
        "digest": digest(data),
        "licence": data.licence,
    }
    BODY.parent.mkdir(parents=True, exist_ok=True)
    save_body(data, BODY)
    stage.write_json(BODY_INFO, info)
    print(f"{data.kind}: {info['vertices']} vertices, {info['faces']} faces, {info['joints']} joints")


if __name__ == "__main__":
    stage.run(main)
