"""The command `orchestration-integrations`: one module for each group of commands."""

import sys

try:
    import typer as typer
except ImportError:
    sys.stderr.write("this command needs an extra: pip install 'orchestration-integrations[cli]'\n")
    sys.exit(2)

from .application import app as app
from .application import main as main
