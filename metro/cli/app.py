"""The console command `metro`: typed functions, whose docstrings and signatures are the help texts and the options."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TextIO

from cyclopts import App, CycloptsError, Parameter

from metro.cli import (
    attention,
    body,
    data,
    doctor,
    evaluation,
    export,
    fitting,
    mesh,
    occlude,
    preset,
    raw,
    serve,
    study,
    training,
    viz,
)
from metro.errors import MetroError
from metro.version import __version__

app = App(
    name="metro",
    help="METRO: image to 3D joints and full mesh.",
    help_format="markdown",
    version=f"metro {__version__}",
    version_flags=["--version", "-V"],
    # Lists take the words that follow, at least one: `--train SET1 SET2`.
    default_parameter=Parameter(consume_multiple=1, negative_iterable=()),
    suppress_keyboard_interrupt=False,
    print_error=False,
    exit_on_error=False,
)
app.register_install_completion_command()

app.command(doctor.doctor)

presets = App(name="preset", help="Named sets of parameters: list, show, apply.")
presets.command(preset.list_presets, name="list")
presets.command(preset.show)
presets.command(preset.apply)
app.command(presets)

studies = App(name="study", help="Trainings that are compared with one another: plan.")
studies.command(study.plan)
app.command(studies)

bodies = App(name="body", help="Body and hand models: describe, convert, draw.")
bodies.command(body.info)
bodies.command(body.convert)
bodies.command(viz.render)
app.command(bodies)

meshes = App(name="mesh", help="Coarse mesh levels: describe.")
meshes.command(mesh.info)
app.command(meshes)

datasets = App(name="data", help="Raw data: look, make up, unpack. Prepared datasets: check, count, draw.")
datasets.command(data.sources)
datasets.command(raw.doctor)
datasets.command(raw.fixture)
datasets.command(raw.unpack)
datasets.command(data.stats)
datasets.command(data.show)
datasets.command(data.verify)
app.command(datasets)

app.command(fitting.fit)

checkpoints = App(name="checkpoint", help="Weights: describe, import, export, blend, release.")
checkpoints.command(training.info)
checkpoints.command(training.import_official, name="import")
checkpoints.command(training.export_official, name="export")
checkpoints.command(training.blend)
checkpoints.command(training.release)
app.command(checkpoints)

app.command(evaluation.evaluate)
app.command(evaluation.evaluate_photos)
app.command(evaluation.compare)
app.command(evaluation.protocols)
app.command(evaluation.submission)
app.command(attention.attention)
app.command(occlude.occlusion)
app.command(export.export)
app.command(export.predict)
app.command(serve.serve)
app.command(serve.demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``metro ARGV``; returns the exit status (2 for a mistake the user can mend)."""
    words = list(sys.argv[1:] if argv is None else argv)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 - the caller closed it; open until the end
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold what is no text
        setattr(sys, name, stream)
    try:
        _check_words(words)
        command, bound, _ = app.parse_args(words)
        result = command(*bound.args, **bound.kwargs)
        if isinstance(result, str):
            print(result)
        elif isinstance(result, Mapping):
            print(json.dumps(result, indent=2, default=str, ensure_ascii=False))
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the reader (head, less) has gone; Rich, which writes help, tells it so
        _silence(sys.stdout)
        return 0
    except (CycloptsError, MetroError) as err:
        return _refused(str(err))
    except OSError as err:
        return _refused(f"{err.filename or 'output'}: {err.strerror or err}")
    except KeyboardInterrupt:
        _refused("interrupted")
        return 130
    # A group without a command shows its help, but did nothing.
    return 2 if command == app.help_print and words and not {"--help", "-h"} & set(words) else 0


def _check_words(words: Sequence[str]) -> None:
    """No system gives such words, but a program may."""
    try:
        given = b"".join(map(os.fsencode, words))
    except UnicodeEncodeError:
        given = b"\0"
    if b"\0" in given:
        raise MetroError("an argument holds characters that no argument can hold")


def _refused(why: str) -> int:
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(why.split()))
    for stream, line in ((sys.stderr, f"metro: {text[:2000]}{'…' * (len(text) > 2000)}\n"), (sys.stdout, "")):
        try:
            stream.write(line)
            stream.flush()
        except OSError:  # no room, no reader
            _silence(stream)
    return 2


def _silence(stream: TextIO) -> None:
    """Lose what is still to be written, which Python would try again at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


if __name__ == "__main__":
    sys.exit(main())
