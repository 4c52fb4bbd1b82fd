"""What requests are answered from: the versions that serve, found by a request's model spec."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fairway.serve.versions.table import ModelTable
from fairway.tfs.request import ModelSpec
from fairway.tfs.status import Code, RequestError, invalid
from fairway.tfs.versions import VersionStatus

if TYPE_CHECKING:  # which takes NumPy along, and that loads beside the rest
    from fairway.serve.compute.servable import Servable


@dataclass(frozen=True, slots=True)
class _Snapshot:
    tables: Mapping[str, ModelTable]
    latest: Mapping[str, Servable]
    numbered: Mapping[tuple[str, int], Servable]


class Models:
    """The models of one process; each look sees all of one moment, never half of a change."""

    def __init__(self) -> None:
        self._snapshot = _Snapshot({}, {}, {})

    def replace(
        self, tables: Mapping[str, ModelTable], servables: Mapping[str, Mapping[int, Servable]]
    ) -> None:
        """Answer from these versions from now on.

        Args:
            tables: By model.
            servables: By model and version; one for each number in the table's `serving`.
        """
        self._snapshot = _Snapshot(
            tables,
            {name: servables[name][table.serving[0]] for name, table in tables.items() if table.serving},
            {(name, number): servable for name in servables for number, servable in servables[name].items()},
        )

    def find(self, spec: ModelSpec) -> Servable:
        """Return the version that is to answer a request.

        Raises:
            RequestError: it does not serve, or the label is not known; in TensorFlow Serving's words.
        """
        snapshot = self._snapshot
        number = spec.version if spec.label is None else _labelled(spec, snapshot)
        if number is None:
            servable = snapshot.latest.get(spec.name)
        else:
            servable = snapshot.numbered.get((spec.name, number))
        if servable is None:
            text = f"Servable not found for request: {ModelSpec(spec.name, number)}"
            raise RequestError(Code.NOT_FOUND, text)
        return servable

    def statuses(self, spec: ModelSpec) -> tuple[VersionStatus, ...]:
        """Return how the versions of a model are doing, newest first; of the one that is asked for, if any.

        Raises:
            RequestError: there is no such version or model; in TensorFlow Serving's words.
        """
        snapshot = self._snapshot
        number = spec.version if spec.label is None else _labelled(spec, snapshot)
        table = snapshot.tables.get(spec.name)
        statuses = table.statuses if table else ()
        if number is not None:
            statuses = tuple(status for status in statuses if status.number == number)
            if not statuses:
                text = f"Could not find version {number} of model {spec.name}"
                raise RequestError(Code.NOT_FOUND, text)
        if not statuses:
            raise RequestError(Code.NOT_FOUND, f"Could not find any versions of model {spec.name}")
        return statuses

    @property
    def serving(self) -> dict[str, tuple[int, ...]]:
        """The versions that answer, by configured model, newest first."""
        return {name: table.serving for name, table in self._snapshot.tables.items()}

    @property
    def problems(self) -> dict[str, str]:
        """Why configured models do not answer, by model; empty: all answer."""
        tables = self._snapshot.tables.items()
        return {name: table.problem for name, table in tables if not table.serving}


def _labelled(spec: ModelSpec, snapshot: _Snapshot) -> int:
    """Return the version that the label of a model spec names."""
    table = snapshot.tables.get(spec.name)
    number = table.labels.get(spec.label or "") if table else None
    if number is None:
        # Source of code and text: tensorflow_serving/model_servers/server_core.cc.
        raise invalid(f"Unrecognized servable version label: {spec.label}")
    return number
