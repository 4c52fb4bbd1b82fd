"""The `fairway` command: one file per command group, which imports what it needs when it runs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from typing import NoReturn

from cyclopts import App, CycloptsError, Group
from cyclopts.config import Env

import fairway
from fairway.cli.apply import apply
from fairway.cli.component import app as component
from fairway.cli.delete import delete
from fairway.cli.diff import diff
from fairway.cli.doctor import doctor
from fairway.cli.env import app as env
from fairway.cli.image import app as image
from fairway.cli.import_ import import_
from fairway.cli.init import init
from fairway.cli.logs import logs
from fairway.cli.models import app as models
from fairway.cli.open import open_
from fairway.cli.param import app as param
from fairway.cli.predict import predict
from fairway.cli.serve import serve
from fairway.cli.show import show
from fairway.cli.status import status
from fairway.cli.sync import sync
from fairway.cli.tensorboard import tensorboard
from fairway.cli.train import train
from fairway.cli.up import up
from fairway.cli.web import web
from fairway.config import ENV_PREFIX
from fairway.errors import FairwayError

EPILOGUE = (
    "Every flag is also an environment variable, TF_ and its name; the flag wins. Add --debug for tracebacks."
)


def build_app() -> App:
    """Return the command with all its sub-commands."""
    app = App(
        name="fairway",
        help="Take a TensorFlow model from a laptop to a served model: train, watch, export, serve, try.\n\n"
        "Start with: fairway up\n\n"
        "Every directory may be a path, file:///path, s3://bucket/prefix or gs://bucket/prefix.",
        help_epilogue=EPILOGUE,
        version=fairway.__version__,
        help_format="plaintext",  # a Markdown parser would take 0.1 s to load
        config=Env(ENV_PREFIX, command=False),
        error_formatter=_format_usage_error,
    )
    for title, commands in (
        ("On this machine", (up, train, serve, predict, web, tensorboard, models, sync)),
        ("App and environments", (init, import_, component, env, param, image)),
        ("On a cluster", (show, diff, apply, status, logs, open_, delete, doctor)),
    ):
        group = Group.create_ordered(title)
        for command in commands:
            if isinstance(command, App):
                command.group = group
                app.command(command)
            else:
                app.command(command, group=group)
    return app


def main() -> NoReturn:
    """Run the command line.

    Exit codes: 0 done, 1 an explained error, 2 bad usage, 138 an error that another start may mend, such as a
    store that gave no answer, 141 nobody reads the output; 129, 130, 143 stopped by SIGHUP, Ctrl-C, SIGTERM.
    """
    if os.getpid() == 1:
        # The kernel drops a signal to a container's first process that has no handler: end as by default.
        signal.signal(signal.SIGTERM, lambda signum, _frame: os._exit(128 + signum))
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("fairway").setLevel(logging.DEBUG if debug else logging.INFO)
    try:
        code = build_app()(words, exit_on_error=False, result_action="return_value")
        _end(code if isinstance(code, int) else 0)
    except FairwayError as err:
        if debug:
            raise
        _print_error(err.message, err.hint)
        _end(err.exit_code)
    except CycloptsError:
        sys.exit(2)  # cyclopts has said what is wrong
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


def _end(code: int) -> NoReturn:
    if "tensorflow" in sys.modules:
        # Its threads may wait for tasks that are gone, and would keep the interpreter from ending.
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # as it is where the process was started without
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _format_usage_error(error: CycloptsError) -> str:
    words = " ".join(getattr(error, "command_chain", None) or ())
    return _error_text(str(error), f"See: fairway {words + ' ' if words else ''}--help")


def _print_error(message: str, hint: str) -> None:
    print(_error_text(message, hint), file=sys.stderr)


def _error_text(message: str, hint: str) -> str:
    return f"error: {message}" + (f"\n  {hint}" if hint else "")
