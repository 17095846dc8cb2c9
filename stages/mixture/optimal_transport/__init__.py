"""The mixture of sources closest to the target: optimal transport on quantised embeddings, solved exactly.

    min over p in the simplex of  OT(sum_i p_i mu_i, nu),   OT with squared Euclidean cost on unit vectors

mu_i is a source, nu the target, each as a few weighted atoms (k-means). With the plan as a variable this is one linear
program, so there is an exact optimum and no step size. The idea of choosing a mixture by its transport distance is
projektor's ("Performance Scaling via Optimal Transport", arXiv:2307.02460); it descends along dual potentials from
uniform shares on labelled samples, needs pilot runs, and its step can leave the simplex. Here nothing is trained.
"""

from stages.mixture.optimal_transport.mixer import OptimalTransport

__all__ = ["OptimalTransport"]
