"""The whole story at once: training, model server, TensorBoard and web UI as processes of this machine."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from dataclasses import replace

from fairway.config import MODEL_NAME, TrainSettings, UpSettings, as_flags
from fairway.local.supervisor import Part, Supervisor, until_any, until_set
from fairway.net.links import Link, new_client, ready_text, until_answering
from fairway.net.ports import claim_port, reachable
from fairway.storage.exports import list_versions

log = logging.getLogger(__name__)

POLL_S = 0.1


def run(train: TrainSettings, settings: UpSettings) -> None:
    """Start all parts, print the links once they answer, and end all on SIGINT or SIGTERM.

    Raises:
        FairwayError: a port is taken, a part ended with an error, or it crashed again and again.
        StorageError: the export directory cannot be read.
    """
    settings = replace(
        settings,
        web_port=claim_port(settings.host, settings.web_port, "--web-port"),
        tensorboard_port=claim_port(settings.host, settings.tensorboard_port, "--tensorboard-port"),
        rest_api_port=claim_port(settings.host, settings.rest_api_port, "--rest-api-port"),
        grpc_port=claim_port(settings.host, settings.grpc_port, "--grpc-port"),
    )
    trained = any(not version.problem for version in list_versions(train.export_dir))
    asyncio.run(_run(train, settings, trained))


async def _run(train: TrainSettings, settings: UpSettings, trained: bool) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    parts = build_parts(train, settings)
    if trained:
        log.info("serving what is exported in %s; train a new version with: fairway train", train.export_dir)
        parts.pop(0)
    supervisor = Supervisor(width=max(len(part.name) for part in parts))
    tasks = {supervisor.start(part) for part in parts}
    tasks.add(asyncio.create_task(_show_links(links(settings))))
    tasks.add(stopping := asyncio.create_task(until_set(stop)))
    try:
        await until_any([stopping], tasks)
        log.info("stopping")
    finally:
        await supervisor.stop()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def build_parts(train: TrainSettings, settings: UpSettings) -> list[Part]:
    """Return the processes of the story, training first."""

    def part(name: str, *words: str, once: bool = False) -> Part:
        return Part(name, (sys.executable, "-m", "fairway", *words), once=once)

    host = ("--host", settings.host)
    server = f"{reachable(settings.host)}:{settings.rest_api_port}"
    return [
        part("train", "train", *as_flags(train), once=True),
        part(
            "serve",
            *("serve", *host, f"--port={settings.grpc_port}", f"--rest_api_port={settings.rest_api_port}"),
            *(f"--model_name={MODEL_NAME}", f"--model_base_path={train.export_dir}"),
        ),
        part(
            "tensorboard",
            *("tensorboard", *host, "--port", str(settings.tensorboard_port), "--logdir", train.model_dir),
        ),
        part(
            "web",
            *("web", *host, "--port", str(settings.web_port), "--server", server, "--model-name", MODEL_NAME),
            *as_flags(train, "dataset", "data_dir", "model_dir", "export_dir"),
        ),
    ]


def links(settings: UpSettings) -> list[Link]:
    """Return what `up` shows, and how to see that it works."""
    host = reachable(settings.host)
    web, board = f"http://{host}:{settings.web_port}/", f"http://{host}:{settings.tensorboard_port}/"
    server = f"http://{host}:{settings.rest_api_port}"
    return [
        Link("Draw a digit", web, f"{web}healthz"),
        Link("TensorBoard", board, board),
        Link("Model server", f"{server}/v1/models/{MODEL_NAME}", f"{server}/readyz"),
        Link("Model server, gRPC", f"{host}:{settings.grpc_port}", f"{server}/readyz"),
    ]


async def _show_links(shown: list[Link]) -> None:
    """Print each link when it answers, and all of them when the last one does."""
    async with new_client() as client:
        for answering in asyncio.as_completed([until_answering(client, link, POLL_S) for link in shown]):
            link = await answering
            log.info("%s answers at %s", link.title, link.url)
    log.info("%s", ready_text(shown, "Ctrl-C stops all."))
