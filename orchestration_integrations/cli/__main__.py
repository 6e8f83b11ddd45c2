"""`python -m orchestration_integrations.cli` is the command."""

from . import main

main()
