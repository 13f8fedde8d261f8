"""Training as a whole, on a handful of images: it learns, it resumes exactly, it stops where it must."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from metro.config import Params
from metro.data.shards import ShardDataset
from metro.errors import MetroError
from metro.mesh.sampling import save_sampling
from metro.training.checkpoint import load_checkpoint
from metro.training.engine import build_optimizer, train
from tests.training.conftest import Setting, small_params, write_people


def losses(result) -> list[float]:
    return [record["loss/total"] for record in result.curves if "loss/total" in record]


def validate(model) -> dict[str, float]:
    """A metric that the weights decide: what the network answers to a fixed image."""
    assert not model.training
    image = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)
    with torch.no_grad():
        return {"mpjpe": float(model(image).vertices[0].abs().mean())}


def test_it_learns(setting: Setting, tmp_path: Path):
    """Four people by heart, each step sees all of them."""
    still = {"flip": 0.0, "rotation_off": 1.0, "scale_sd": 0.0, "colour": 0.0}
    params = small_params(steps=60, lr=3e-3, ema=None, save_every=60, mask={"joints": 0, "vertices": 0}, augment=still)
    people = setting.datasets[0].first(4)
    history = losses(train(params, [people], setting.body, setting.levels, tmp_path))
    assert sum(history[-10:]) < 0.6 * sum(history[:10])


@pytest.mark.parametrize("frozen", [{}, {"freeze": ["backbone", "blocks.0"], "views": 2}], ids=["all", "head"])
def test_an_interrupted_run_continues_to_the_same_weights(setting: Setting, tmp_path: Path, frozen: dict[str, Any]):
    class KilledError(Exception):
        pass

    def kill_at_4(scalars, step):
        if step == 4:
            raise KilledError

    params = small_params(log_every=4, **frozen)  # a log record spans a checkpoint
    arguments = (params, setting.datasets, setting.body, setting.levels)
    whole = train(*arguments, tmp_path / "whole", validate=validate)
    with pytest.raises(KilledError):
        train(*arguments, tmp_path / "cut", log=kill_at_4, validate=validate)
    resumed = train(*arguments, tmp_path / "cut", validate=validate)
    assert losses(resumed) == losses(whole)
    for name in ("best", "step-00000006"):
        ours, theirs = (load_checkpoint(tmp_path / run / name) for run in ("cut", "whole"))
        assert ours.sha256["model.safetensors"] == theirs.sha256["model.safetensors"]
    assert resumed.checkpoint.metrics == whole.checkpoint.metrics


def test_only_the_last_checkpoints_and_the_best_are_kept(setting: Setting, tmp_path: Path):
    train(setting.params, setting.datasets, setting.body, setting.levels, tmp_path, validate=validate)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "step-00000004", "step-00000006"]


def test_a_finished_run_is_not_trained_again(setting: Setting, tmp_path: Path):
    arguments = (setting.params, setting.datasets, setting.body, setting.levels, tmp_path)
    first = train(*arguments)
    steps = []
    again = train(*arguments, log=lambda scalars, step: steps.append(step))
    assert not steps
    assert again.curves == first.curves


def test_a_folder_with_another_run_is_refused(setting: Setting, tmp_path: Path):
    train(small_params(steps=2), setting.datasets, setting.body, setting.levels, tmp_path)
    with pytest.raises(MetroError, match="other parameters"):
        train(small_params(steps=2, lr=0.5), setting.datasets, setting.body, setting.levels, tmp_path)


def beyond_bounds(params: Params, **train: float) -> Params:
    """Parameters that no file may hold."""
    return params.model_copy(update={"train": params.train.model_copy(update=train)})


def test_a_diverging_run_stops_with_a_message(setting: Setting, tmp_path: Path):
    params = beyond_bounds(small_params(steps=30, clip=None, log_every=30, save_every=3), lr=1e30)
    with pytest.raises(MetroError, match=r"at step 2 are not finite.*train\.lr"):
        train(params, setting.datasets, setting.body, setting.levels, tmp_path)
    assert not list(tmp_path.glob("step-*"))  # looked at before step 3 is kept


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_trains_alike(setting: Setting, tmp_path: Path):
    runs = []
    for compiled in (False, True):
        params = small_params(steps=3, lr=1e-5, compile=compiled)
        still = params.model.model_copy(update={"dropout": 0.0, "attention_dropout": 0.0})
        params = params.model_copy(update={"model": still})
        runs.append(train(params, setting.datasets, setting.body, setting.levels, tmp_path / str(compiled)))
    assert losses(runs[0]) == pytest.approx(losses(runs[1]), rel=1e-3)
    assert runs[0].checkpoint.weights().keys() == runs[1].checkpoint.weights().keys()


def test_a_leaping_loss_stops_the_run_with_a_message(setting: Setting, tmp_path: Path):
    """With a limit of half the lowest loss, the first loss that does not halve is a leap."""
    params = small_params(steps=12, log_every=1, save_every=1, spike=0.5)
    with pytest.raises(MetroError, match=r"once .* leapt to .* in the 1 steps .*train\.lr"):
        train(params, setting.datasets, setting.body, setting.levels, tmp_path)
    assert not list(tmp_path.glob("step-00000012"))
    calm = small_params(steps=12, log_every=1, spike=None)
    assert len(losses(train(calm, setting.datasets, setting.body, setting.levels, tmp_path / "calm"))) == 12


def test_the_log_tells_speed_utilisation_and_memory_and_the_curves_do_not(setting: Setting, tmp_path: Path):
    told: list[dict[str, float]] = []
    params, log = small_params(steps=4, log_every=2), lambda record, step: told.append({"step": step, **record})
    result = train(params, setting.datasets, setting.body, setting.levels, tmp_path, log=log)
    assert [record["step"] for record in told] == [2, 4]
    for record in told:
        assert record["speed/images_per_s"] > 0
        assert 0 < record["speed/mfu"] < 1
        assert 0 <= record["speed/data_wait"] < 1
        assert 0.05 < record["memory/process_gib"] < 20
    measured = ("speed/", "memory/")
    lasting = [{key: value for key, value in record.items() if not key.startswith(measured)} for record in told]
    assert result.curves == lasting


def test_the_mixture_reaches_the_loader(setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from metro.training import engine

    seen = []
    real = engine.TrainStream
    monkeypatch.setattr(engine, "TrainStream", lambda *a, **k: seen.append(k["weights"]) or real(*a, **k))
    params = small_params(steps=1).model_dump()
    params["train"] |= {"datasets": ["a", "b"], "mixture": {"b": 1.0, "a": 3.0}}
    params = Params.model_validate(params | {"datasets": {"a": {}, "b": {}}})
    train(params, [*setting.datasets, *setting.datasets][:2], setting.body, setting.levels, tmp_path)
    assert seen == [[3.0, 1.0]]


def test_accumulation_gives_the_gradient_of_the_whole_batch(setting: Setting, tmp_path: Path):
    """All samples have all labels, so the mean of the halves is the mean of the whole; batch norm is the difference."""
    first = []
    for parts in (1, 2):
        params = small_params(steps=1, accumulate=parts, log_every=1)
        result = train(params, setting.datasets, setting.body, setting.levels, tmp_path / str(parts))
        first.append(losses(result)[0])
    assert first[0] == pytest.approx(first[1], rel=0.05)


def test_start_weights_come_from_a_checkpoint(setting: Setting, tmp_path: Path):
    trained = train(small_params(steps=2), setting.datasets, setting.body, setting.levels, tmp_path / "a")
    params = small_params(steps=1, lr=1e-30, ema=None, init=str(trained.checkpoint.folder))
    started = train(params, setting.datasets, setting.body, setting.levels, tmp_path / "b")
    ours, theirs = started.checkpoint.weights(), trained.checkpoint.weights()
    kept = [k for k in ours if "running" not in k and "tracked" not in k]
    assert all(torch.allclose(ours[k], theirs[k], rtol=0, atol=1e-29) for k in kept)


def test_other_mesh_levels_are_refused_at_the_start_and_on_resume(setting: Setting, tmp_path: Path):
    params = small_params(steps=2)
    trained = train(params, setting.datasets, setting.body, setting.levels, tmp_path / "a")
    finer, coarser = setting.levels
    order = np.r_[1, 0, 2 : len(coarser.indices)]  # two vertices have changed places
    swapped = [finer, replace(coarser, indices=coarser.indices[order], up=coarser.up[:, order])]
    refusal = r"other mesh levels \(431 of 431 vertices in common, 429 of them in the same place\); set sampling"
    with pytest.raises(MetroError, match=refusal):
        train(params, setting.datasets, setting.body, swapped, tmp_path / "a")
    params = small_params(steps=1, init=str(trained.checkpoint.folder))
    with pytest.raises(MetroError, match=refusal):
        train(params, setting.datasets, setting.body, swapped, tmp_path / "b")


def test_averaged_weights_forget_the_start_early(setting: Setting, tmp_path: Path):
    """With each step k, (1 + k) / (10 + k) of the average stays, 0.15 at most."""
    arguments = (setting.datasets, setting.body, setting.levels)
    start = train(small_params(steps=1, ema=None), *arguments, tmp_path / "start").checkpoint
    params = small_params(steps=3, save_every=1, keep=3, ema=0.15, init=str(start.folder))
    train(params, *arguments, tmp_path / "run")
    mean = start.weights()
    for step, stays in enumerate((1 / 10, 0.15, 0.15)):
        saved = load_checkpoint(tmp_path / "run" / f"step-{step + 1:08d}")
        own, averaged = saved.training_state()["weights"], saved.weights()
        for name, value in own.items():
            counter = not value.is_floating_point()
            mean[name] = value if counter else stays * mean[name] + (1 - stays) * value
            torch.testing.assert_close(averaged[name], mean[name], rtol=1e-5, atol=1e-7)


def test_weight_decay_spares_vectors_and_positions(setting: Setting):
    from metro.model.metro import build_model

    model = build_model(setting.params.model, setting.body, setting.levels)
    names = {id(p): n for n, p in model.named_parameters()}
    decayed, spared = build_optimizer(model, setting.params.train).param_groups
    assert all(p.ndim > 1 and "position" not in names[id(p)] for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_the_backbone_takes_its_own_share_of_the_rate(setting: Setting, tmp_path: Path):
    """The first step of Adam is as large as the rate, whatever the gradient."""
    arguments = (setting.datasets, setting.body, setting.levels)
    start = train(small_params(steps=1, ema=None), *arguments, tmp_path / "start").checkpoint
    once = {"steps": 1, "ema": None, "optimizer": "adam", "schedule": "constant", "lr": 1e-3, "warmup_steps": 0}
    params = small_params(**once, backbone_lr=0.05, init=str(start.folder))
    end = train(params, *arguments, tmp_path / "end").checkpoint.weights()
    moved = {True: 0.0, False: 0.0}
    for name, before in start.weights().items():
        if "running_" not in name and before.is_floating_point():
            part = name.startswith("backbone.")
            moved[part] = max(moved[part], float((end[name] - before).abs().max()))
    assert moved == {True: pytest.approx(5e-5, rel=0.02), False: pytest.approx(1e-3, rel=0.02)}


RUN = """
import sys
from pathlib import Path
import torch
from metro.body.load import load_body
from metro.config import load_params
from metro.data.shards import ShardDataset
from metro.mesh.sampling import load_sampling
from metro.training.engine import train
torch.set_num_threads(1)
params, shard, sampling, work = sys.argv[1:]
train(load_params(params), [ShardDataset([Path(shard)])], load_body("open"), load_sampling(Path(sampling)), Path(work))
"""


def run_arguments(setting: Setting, params: Params, folder: Path) -> list[str]:
    """Write what RUN needs to `folder`; it trains in `folder / "work"`."""
    save_sampling(folder / "sampling.npz", setting.levels)
    (folder / "params.yaml").write_text(json.dumps(params.model_dump(mode="json")))
    paths = (folder / "params.yaml", setting.datasets[0].paths[0], folder / "sampling.npz", folder / "work")
    return [str(path) for path in paths]


@pytest.mark.parametrize("launcher", [pytest.param("torchrun", marks=pytest.mark.slow), "fabric"])
def test_two_processes_train_as_one(setting: Setting, tmp_path: Path, launcher: str):
    """Half of the batches' samples lack a mesh, unevenly spread, so that the denominators have to be shared. Those that
    Fabric launches train on the features of a frozen backbone."""
    write_people(tmp_path / "people.h5", setting.body, meshes=5)
    setting = setting._replace(datasets=[ShardDataset([tmp_path / "people.h5"])])
    own = {"cpu_processes": 2, "freeze": ["backbone"], "views": 1} if launcher == "fabric" else {}
    params = small_params(steps=4, ema=None, seed=2, **own)
    model = params.model.model_copy(update={"backbone": "timm/test_convnext", "dropout": 0.0, "attention_dropout": 0.0})
    params = params.model_copy(update={"model": model})  # no batch norm: its statistics are each process's own
    (tmp_path / "run.py").write_text(RUN)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"] if launcher == "torchrun" else []
    command = [sys.executable, *torchrun, str(tmp_path / "run.py"), *run_arguments(setting, params, tmp_path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    alone = params.model_copy(update={"train": params.train.model_copy(update={"cpu_processes": 1})})
    one = train(alone, setting.datasets, setting.body, setting.levels, tmp_path / "one")
    two = load_checkpoint(tmp_path / "work" / "step-00000004")
    curves = json.loads(two.training_state()["curves"])
    assert [record["loss/total"] for record in curves] == pytest.approx(losses(one), rel=1e-5)
    weights = two.weights()
    for name, value in one.checkpoint.weights().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4)


ENDING = """
import os, signal, sys
import psutil
import metro.training.engine as engine
from metro.errors import MetroError
first, own = os.environ.get("LOCAL_RANK", "0") == "0", engine.metro_loss

def trouble(*arguments):
    way = os.environ["TROUBLE"]
    if first and way == "first":
        raise MetroError("the first has a problem")
    if not first and way == "second":
        raise MetroError("the second has a problem")
    if not first and way == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if not first and way == "loader":
        psutil.Process().children()[0].kill()
    return own(*arguments)

engine.metro_loss = trouble
try:
    {run}
except MetroError as err:
    print(err if first else f"train (process 1): {{err}}", file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        pytest.param("first", "the first has a problem", marks=pytest.mark.slow),
        ("second", "process 1: the second has a problem"),
        ("kill", "process 1 was ended by SIGKILL, usually for lack of memory; run again .*"),
        pytest.param(
            "loader",
            r"process 1: a process that loads batches was ended \(.* killed by signal: Killed\), usually .*",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_of_two_processes_one_says_why_they_ended(setting: Setting, tmp_path: Path, trouble: str, said: str):
    params = small_params(cpu_processes=2, workers=1)
    (tmp_path / "run.py").write_text(ENDING.format(run=RUN.replace("\n", "\n    ")))
    command = [sys.executable, str(tmp_path / "run.py"), *run_arguments(setting, params, tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TROUBLE": trouble}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert re.fullmatch(f"{said}\\n", done.stderr)
    assert done.returncode == 2
    assert not [p for p in psutil.process_iter(["cmdline"]) if str(tmp_path) in " ".join(p.info["cmdline"] or [])]


@pytest.mark.slow
def test_the_first_process_finds_the_checkpoint_to_go_on_with(setting: Setting, tmp_path: Path):
    """What the second would find may have been written, or removed, in between."""
    looking = "import os, metro.training.run as run\nif 'METRO_LEADER' in os.environ: run.latest_checkpoint = None\n"
    (tmp_path / "run.py").write_text(looking + RUN)
    both = small_params(steps=2, ema=None, cpu_processes=2)
    command = [sys.executable, str(tmp_path / "run.py"), *run_arguments(setting, both, tmp_path)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    newest = tmp_path / "work" / "step-00000002" / "checkpoint.json"
    written = newest.stat().st_mtime_ns
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert newest.stat().st_mtime_ns == written


def test_kill_9_then_the_same_command_gives_the_same_weights(setting: Setting, tmp_path: Path):
    params = small_params(steps=12, save_every=2)
    command = [sys.executable, "-c", RUN, *run_arguments(setting, params, tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while not list((tmp_path / "work").glob("step-*")) and time.time() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = train(params, setting.datasets, setting.body, setting.levels, tmp_path / "whole")
    resumed = load_checkpoint(tmp_path / "work" / "step-00000012")
    assert resumed.sha256["model.safetensors"] == whole.checkpoint.sha256["model.safetensors"]
    assert not list((tmp_path / "work").glob(".*"))
