"""Arguments that many commands have."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

EnvironmentName = Annotated[str, Parameter(help="Name of the environment.")]
