"""The model server as a process, or several: its ports, its start, its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from fairway.config import ServeSettings
from fairway.net import grpc_log
from fairway.net.ports import listen, reachable, reserve
from fairway.serve.answering import Answering
from fairway.serve.config_file import ConfigFile
from fairway.serve.metrics import Metrics
from fairway.serve.plan import Plan, read_plan
from fairway.serve.versions.backend import Backend, InProcess
from fairway.serve.versions.decider import Decider
from fairway.serve.versions.models import Models
from fairway.tfs.configs import Latest, ModelConfig

_STDERR = 2

log = logging.getLogger(__name__)


def run(settings: ServeSettings) -> None:
    """Serve until SIGTERM or Ctrl-C; then answer what has been asked, for as long as the settings allow.

    Raises:
        UsageError: a file that a setting names cannot be read or holds something else.
        FairwayError: a base path is a file or a URI that cannot be used, or a port cannot be had.
    """
    _open_missing_descriptors()
    grpc_log.silence()
    plan = read_plan(settings)
    config_file = ConfigFile(settings.model_config_file) if settings.model_config_file else None
    configs = config_file.configs if config_file else (_single(settings),)
    if settings.workers == 1:
        _run_alone(plan, configs, config_file)
    else:
        _run_workers(plan, configs, config_file)


def _open_missing_descriptors() -> None:
    """Open stdin, stdout and stderr where this process was started without, for the workers, too.

    Else a socket would get such a number: what is written to stdout would go there, and libuv ends the
    process when it is to close it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _single(settings: ServeSettings) -> ModelConfig:
    return ModelConfig(settings.model_name, settings.model_base_path, Latest(), {})


def _run_alone(plan: Plan, configs: tuple[ModelConfig, ...], config_file: ConfigFile | None) -> None:
    settings, models, metrics = plan.settings, Models(), Metrics()
    backend = InProcess(models, settings)
    with (
        _deciding(plan, configs, config_file, backend, metrics) as decider,
        listen(settings.host, settings.rest_api_port, "--rest_api_port") as listener,
    ):
        _start(decider, config_file, settings)
        Answering(plan, models, metrics, decider.reload, lambda: [metrics.snapshot()]).run(
            lambda: listener,
            _announcer(plan, configs),
            share_ports=False,
            socket_path=settings.grpc_socket_path,
        )


def _run_workers(plan: Plan, configs: tuple[ModelConfig, ...], config_file: ConfigFile | None) -> None:
    from fairway.serve.processes.workers import Workers

    settings, metrics = plan.settings, Metrics()
    with (
        reserve(settings.host, settings.rest_api_port, "--rest_api_port") as rest,
        reserve(settings.host, settings.port, "--port") as grpc,
    ):
        rest_port, grpc_port = rest.getsockname()[1], grpc.getsockname()[1]
        plan = replace(plan, settings=replace(settings, rest_api_port=rest_port, port=grpc_port))
        workers = Workers(plan, metrics)
        with _deciding(plan, configs, config_file, workers, metrics) as decider:
            decider.publish()  # a worker must know what it does not answer yet before it says it is ready
            with workers.running(decider.reload):
                _start(decider, config_file, settings)
                _announcer(plan, configs)(rest_port, grpc_port)
                workers.wait()
                decider.stop()


@contextmanager
def _deciding(
    plan: Plan,
    configs: tuple[ModelConfig, ...],
    config_file: ConfigFile | None,
    backend: Backend,
    metrics: Metrics,
) -> Iterator[Decider]:
    settings = plan.settings
    with config_file.named() if config_file else nullcontext():
        decider = Decider(
            configs,
            backend,
            poll_s=settings.file_system_poll_wait_seconds,
            allow_labels=settings.allow_version_labels_for_unavailable_models,
            record=metrics.load,
        )
    try:
        yield decider
    finally:
        if config_file:
            config_file.stop()
        decider.close()


def _start(decider: Decider, config_file: ConfigFile | None, settings: ServeSettings) -> None:
    decider.start()
    if config_file and settings.model_config_file_poll_wait_seconds:
        config_file.watch(settings.model_config_file_poll_wait_seconds, decider.reload)


def _announcer(plan: Plan, configs: tuple[ModelConfig, ...]) -> Callable[[int, int], None]:
    def announce(rest_port: int, grpc_port: int) -> None:
        host = reachable(plan.settings.host)
        for config in configs:
            url = f"http://{host}:{rest_port}/v1/models/{config.name}"
            log.info("serving %s at %s from %s", config.name, url, config.base_path)
        log.info("gRPC answers at %s:%d", host, grpc_port)

    return announce
