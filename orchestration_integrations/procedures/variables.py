"""Variables that this package adds to those of a run."""

from __future__ import annotations

KEY_VARIABLE = "runKey"
"""Carries the run's key, unless the caller names another."""
GATE_VARIABLE = "runGate"
"""Carries what opens the gate of a gated run."""
