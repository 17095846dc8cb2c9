"""Pilot runs: designed mixtures of the sources, each trained for seconds to minutes and measured on held-out pairs."""

from pipeline.trials.asked import asked
from pipeline.trials.run import run_trials

__all__ = ["asked", "run_trials"]
