"""`fairway models`: what is in an export directory."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from fairway.cli.output import print_rows, table
from fairway.config import ModelsSettings, ProbeSettings
from fairway.errors import StorageError

if TYPE_CHECKING:
    from fairway.storage.exports import Version

app = App(
    name="models",
    help="""List and show exported models, and try the directories that they go to.

    See also: fairway train, fairway serve
    """,
)

_COLUMNS = ("version", "created", "model_type", "dataset", "test_accuracy", "step", "size_bytes", "state")


@app.command(name="list")
def list_(settings: ModelsSettings = ModelsSettings()) -> None:  # noqa: B008 - frozen
    """List the versions in an export directory, oldest first: what they are and whether they are complete.

    For example:

        fairway models list
        fairway models list --export-dir s3://models/mnist -o json
    """
    from fairway.storage.exports import list_versions

    rows = [_summary(version) for version in list_versions(settings.export_dir)]
    if settings.output == "json":
        print(json.dumps(rows, indent=2))
    else:
        print(_table(rows))


@app.command
def show(
    number: Annotated[int | None, Parameter(help="The version. Default: the newest complete one.")] = None,
    /,
    settings: ModelsSettings = ModelsSettings(),  # noqa: B008 - frozen
) -> None:
    """Show all that is recorded of one version, and compare every file with its checksum.

    Exits with 1 if a file is damaged.

    For example:

        fairway models show
        fairway models show 1767225600 -o json
    """
    from fairway.storage.exports import damaged_files, find_version

    found = find_version(settings.export_dir, number)
    damaged = damaged_files(found)
    record: dict[str, Any] = {"version": found.number, "path": found.uri, "damaged": damaged}
    if found.manifest:
        record |= asdict(found.manifest)
    if settings.output == "json":
        print(json.dumps(record, indent=2))
    else:
        print("\n".join(_outline(record)))
    if damaged:
        raise StorageError(
            f"version {found.number} is damaged: wrong checksum of {', '.join(damaged)}",
            hint=f"Delete {found.uri}; the version before it is served then.",
        )


@app.command
def probe(settings: ProbeSettings = ProbeSettings()) -> int:  # noqa: B008 - frozen
    """Try whether a training could write here: create, read and delete a small file in both directories.

    Directories are made where they do not exist, as a training does. Exits with 1 if one cannot be used.
    `fairway doctor` runs this in a pod with the training's image and settings.

    For example:

        fairway models probe
        fairway models probe --model-dir s3://models/mnist --export-dir s3://models/mnist/export -o json
    """
    from fairway.storage.probe import probe

    findings = [probe(settings.model_dir), probe(settings.export_dir)]
    print_rows([asdict(finding) for finding in findings], settings.output)
    return int(any(finding.problem for finding in findings))


def _summary(version: Version) -> dict[str, Any]:
    manifest = version.manifest
    return {
        "version": version.number,
        "created": manifest.created if manifest else None,
        "model_type": manifest.model_type if manifest else None,
        "dataset": manifest.dataset.name if manifest else None,
        "test_accuracy": manifest.metrics.get("test_accuracy") if manifest else None,
        "step": manifest.step if manifest else None,
        "size_bytes": _size(version),
        "state": version.problem or ("complete" if manifest else "complete, without a manifest"),
    }


def _size(version: Version) -> int | None:
    """Return the bytes of a version; `None` if only a listing of its store could tell."""
    if manifest := version.manifest:
        files = sum(int(entry["size"]) for entry in manifest.files.values())
        return files + len(manifest.to_json())
    if "://" in version.uri:
        return None
    return sum(file.stat().st_size for file in version.path.rglob("*") if file.is_file())


def _table(rows: Iterable[dict[str, Any]]) -> str:
    header = [name.removesuffix("_bytes").replace("_", " ").upper() for name in _COLUMNS]
    return table([header, *([_cell(name, row[name]) for name in _COLUMNS] for row in rows)])


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name == "test_accuracy":
        return f"{value:.2%}"
    if name == "size_bytes":
        return f"{value / 1e6:.1f} MB" if value >= 1e6 else f"{value / 1e3:.1f} kB"
    return str(value)


def _outline(content: Any, depth: int = 0) -> list[str]:
    """Return nested objects as indented lines of `key: value`."""
    indent = "  " * depth
    lines = []
    for key, value in content.items():
        if isinstance(value, dict) and value:
            lines += [f"{indent}{key}:", *_outline(value, depth + 1)]
        else:
            lines.append(f"{indent}{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return lines
