"""Stage `sampling`: the coarse levels of the mesh and the matrices between them."""

from __future__ import annotations

from metro.config import Params
from metro.errors import MetroError
from pipeline import stage
from pipeline.paths import BODY, SAMPLING


def main(params: Params) -> None:
    """Build the levels, or take them from a published file or a checkpoint."""
    from metro.body.arrays import digest, read_npz
    from metro.mesh.legacy import levels_of
    from metro.mesh.sampling import save_sampling
    from metro.training.checkpoint import load_checkpoint

    body = read_npz(BODY)
    config = params.sampling
    if config.checkpoint:
        found = load_checkpoint(config.checkpoint)
        found.check_body(digest(body))
        levels = found.levels
        sizes = tuple(len(level.indices) for level in levels)
        if sizes != config.sizes:
            raise MetroError(f"sampling.sizes: {config.sizes}, but {found.folder} has levels of {sizes}; set those")
    else:
        levels = levels_of(config, body)
    save_sampling(SAMPLING, levels, {"body": digest(body), **stage.section(params, "sampling")})
    print(" → ".join(str(n) for n in (len(body.v_template), *(len(level.indices) for level in levels))), "vertices")


if __name__ == "__main__":
    stage.run(main)
