"""`python -m bench [NAME …]`: run the benchmarks and print one table; exits with 1 if a goal is missed."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable

from bench import cluster, distributed, images, serving, starting, storage, training
from bench.report import Figure, table

BENCHES: dict[str, Callable[[], list[Figure]]] = {
    "help": starting.help_time,
    "up": starting.first_prediction,
    "default": training.default_recipe,
    "embedded": training.embedded_recipe,
    "long": training.long_recipe,
    "transfer": storage.transfer,
    "idle-mirror": storage.idle_mirror,
    "mirror": storage.mirrored_training,
    "poll": storage.poll,
    "scaling": distributed.scaling,
    "distributed-accuracy": distributed.accuracy,
    "recovery": distributed.recovery,
    "show": cluster.show_time,
    "apply": cluster.apply_time,
    "images": images.sizes,
    "rest": serving.rest,
    "grpc": serving.grpc,
    "batching": serving.batching,
    "start": serving.start,
}


def main() -> None:
    """Run the benchmarks that are named, or all."""
    names = sys.argv[1:] or list(BENCHES)
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        sys.exit(f"no benchmark {', '.join(unknown)}; have: {', '.join(BENCHES)}")
    figures = []
    for name in names:
        print(f"== {name}", file=sys.stderr)
        figures += BENCHES[name]()
    print(f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} at the end\n")
    print(table(figures))
    sys.exit(not all(figure.met for figure in figures))


main()
