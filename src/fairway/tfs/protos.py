"""The protobuf messages of TensorFlow Serving and of TensorFlow, without either package.

`serving.binpb` beside this file is a FileDescriptorSet, made by `make protos` from the official packages.
It is loaded into a pool of its own: the messages that TensorFlow registers in the default pool, in a process
that imports it too, have the same names, and protobuf allows each name once.
"""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from google.protobuf.descriptor_pool import DescriptorPool

_lock = threading.Lock()  # two pools would make two classes of each message


def message(name: str) -> Any:
    """Return the class of a message by its full name: "tensorflow.serving.PredictRequest".

    Raises:
        KeyError: there is no such message.
    """
    with _lock:
        return _message(name)


def parse(name: str, data: bytes) -> Any:
    """Return the message of a name that `data` holds.

    Raises:
        ValueError: it holds something else.
    """
    from google.protobuf.message import DecodeError

    try:
        return message(name).FromString(data)
    except DecodeError as err:
        raise ValueError(f"not a {name} message: {err}") from err


def pool() -> DescriptorPool:
    """Return the pool that holds all messages and services."""
    with _lock:
        return _pool()


@cache
def _message(name: str) -> Any:
    from google.protobuf.message_factory import GetMessageClass

    return GetMessageClass(_pool().FindMessageTypeByName(name))


@cache
def _pool() -> DescriptorPool:
    # Imported here because it takes 20 ms, which a command that needs no message should not pay.
    from google.protobuf.descriptor_pb2 import FileDescriptorSet
    from google.protobuf.descriptor_pool import DescriptorPool

    content = Path(__file__).with_name("serving.binpb").read_bytes()
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    return pool
