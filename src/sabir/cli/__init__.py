"""The command line: the verbs, and the only package that prints."""

# In the order of the help: importing them registers their verbs.
# isort: off
from sabir.cli import project  # noqa: F401
from sabir.cli import show  # noqa: F401
from sabir.cli import predict  # noqa: F401
from sabir.cli import estimate  # noqa: F401
from sabir.cli import releases  # noqa: F401
from sabir.cli import store  # noqa: F401
from sabir.cli import adapters  # noqa: F401

# isort: on
from sabir.cli.main import main

__all__ = ["main"]
