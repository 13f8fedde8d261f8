"""`metro data doctor`, `fixture` and `unpack`: raw data as datasets' sites hand them out."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Parameter

from metro.cli.options import Between, Place, ToFolder, Word
from metro.errors import MetroError
from metro.words import Source

Split = Literal["train", "validation", "test"]


def doctor(
    dataset: Word,
    /,
    *,
    raw: Place,
    split: Split = "train",
    option: list[Word] | None = None,
    params: Place | None = None,
) -> str:
    """Look at raw data before any work: what is there, what is missing, what it will give.

    Parameters
    ----------
    dataset
        Source (`metro data sources` lists them).
    raw
        Folder of the raw data.
    split
        What the records would be for.
    option
        Options of the source, each NAME=VALUE as in `options` of a dataset.
    params
        Params file whose `body` section applies; some checks need the body. A fixture tells its own.
    """
    from metro import sources
    from metro.config import BodyConfig, load_params
    from metro.sources.source import marked_body, whose_parameters

    if dataset != "synthetic" and not raw.is_dir():
        raise MetroError(f"{raw}: no such folder; --raw names the folder of the raw data")
    adapter = sources.adapter(dataset)
    given: dict[str, Any] = {"source": dataset, "root": str(raw), "split": split, "options": _options(option or [])}
    config = load_params({"datasets": {"raw": given}}, "options").datasets["raw"]
    body = load_params(params).body if params else BodyConfig.model_validate({"kind": marked_body(raw) or "open"})
    survey = adapter.survey(config, body)
    print(f"{raw}: {survey.dialect}")
    print(f"{'licence':<10}{adapter.LICENCE}")
    for file in survey.files:
        said = f"from {file.origin}"
        if file.found:
            sizes = [path.stat().st_size for path in file.paths(raw)]
            said = f"{sum(sizes):,} bytes" + (f" in {len(sizes):,} files" if "*" in file.path else "")
        print(f"{'ok' if file.found else 'MISSING':<10}{file.path}  {said}")
    for line in survey.missing:
        print(f"{'MISSING':<10}{line}")
    for check in survey.checks:
        print(f"{check.verdict:<10}{check.what}: {check.seen}")
    for line in survey.notes:
        print(f"{'note':<10}{line}")
    if kind := whose_parameters(config, survey):
        needed = "is needed" if survey.posed else "is needed for meshes, not for joints (supervision: joints_3d)"
        print(f"{'body':<10}its poses and shapes are those of {kind}: body.kind={kind} {needed}")
    known = "not known" if survey.expected is None else f"{survey.expected:,}"
    print(f"{'expected':<10}records of the complete set with these options: {known}")
    lost = sum(not file.found for file in survey.files) + len(survey.missing)
    if lost:
        raise MetroError(f"{raw}: {lost} missing, see above")
    return f"everything that {dataset} needs is here"


def fixture(
    dataset: Word,
    folder: ToFolder,
    /,
    *,
    people: Annotated[int, Parameter(validator=Between(1, 1000))] = 6,
    dialect: Word | None = None,
    seed: Annotated[int, Parameter(validator=Between(1, 2**32 - 1))] = 1,
) -> str:
    """Write a small raw tree in a dataset's official layout, from synthetic people: to try its adapter without data.

    Parameters
    ----------
    dataset
        Source (`metro data sources` lists them).
    folder
        Folder to make.
    people
        People in it, about.
    dialect
        Which of the layouts that the set comes in; without it the usual one.
    seed
        Names the people.
    """
    from metro.fixtures import write

    write(dataset, folder, people, seed, dialect)
    return f"{folder}: raw data as {dataset} has them, of synthetic people; what they are is in truth.json"


def unpack(dataset: Source, /, *, raw: Place) -> str:
    """Extract the archives of a dataset, as its site hands them out, into the raw tree that `prepare` reads.

    Only what is needed is extracted, each archive once; what a killed run left goes on. Archives stay.

    Parameters
    ----------
    dataset
        Source of the dataset (`metro data sources` lists them).
    raw
        Folder with the archives, which becomes the raw tree.
    """
    from metro.sources.unpack import unpack as lines_of

    lines = 0
    for line in lines_of(dataset, raw):
        print(line)
        lines += 1
    return f"{raw}: {lines} archives of {dataset} unpacked"


def _options(words: list[str]) -> dict[str, Any]:
    """Options NAME=VALUE, the values as YAML has them."""
    import yaml

    found = {}
    for word in words:
        name, separator, value = word.partition("=")
        if not separator:
            raise MetroError(f"--option {word}: give NAME=VALUE")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise MetroError(f"--option {word}: the value is no YAML") from None
    return found
