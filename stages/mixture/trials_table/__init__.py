"""The table of pilot runs: what each drew from which source, and what it then scored.

It comes from `cuvee trials`, or from a user as a CSV or Parquet file with the columns of `schemas.tables.TRIALS`.
"""

from stages.mixture.trials_table.read import read_trials
from stages.mixture.trials_table.table import TrialsTable, mixture_ids, write_trials

__all__ = ["TrialsTable", "mixture_ids", "read_trials", "write_trials"]
