"""What gRPC's C++ core writes to stderr."""

import os


def silence() -> None:
    """Keep the core quiet, unless the user has set `GRPC_VERBOSITY`; to be called before grpc is imported.

    It writes lines for its developers: how each connection ended, and what `grpc` raises as exceptions, too.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
