"""The mixture that pilot runs speak for: a law per metric, fitted to a table of runs, and the optimum of their sum.

    min over p   sum_m w_m f_m(p) + lambda KL(p || prior)      lower <= p <= upper,  f_m(p) <= f_m(reference)

Each f_m is the law that best predicts mixtures left out of its fit: linear, log-linear (Olmix), exponential (Data
Mixing Laws, arXiv:2403.16952), boosted trees (RegMix, arXiv:2407.01492), a Gaussian process, projektor's form, or a
stack of them. Where the laws are convex the optimum is certified. What is ours: intervals from a Bayesian bootstrap
over mixtures, metrics that must not get worse, and what each source buys at the margin.
"""

from stages.mixture.pilot_trials.mixer import PilotTrials

__all__ = ["PilotTrials"]
