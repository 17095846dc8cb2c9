"""Proposes a mixture from laws of metrics: a convex program where the laws are convex, simulated mixtures elsewhere."""

from stages.mixture.proposer.box import Box
from stages.mixture.proposer.program import Law, Limits, Metric, Program, program
from stages.mixture.proposer.propose import Proposal, propose
from stages.mixture.proposer.simulated import candidates

__all__ = ["Box", "Law", "Limits", "Metric", "Program", "Proposal", "candidates", "program", "propose"]
