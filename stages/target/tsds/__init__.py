"""TSDS: rows near to a few examples, diverse and robust to near-duplicates (Liu et al., arXiv:2410.11303).

Over transports of M query examples to the candidates, g_ij >= 0 with sum_j g_ij = 1 / M, it minimises

    alpha / C sum_ij g_ij d_ij + (1 - alpha) M max_ij rho_j g_ij

for Euclidean distances d and densities rho_j = sum_l max(0, 1 - d_jl^2 / sigma^2): rows that are close to each other
share what one of them alone would get. The optimum has a closed form by nearest neighbours, see `assignment.py`; rows
are drawn with probabilities p_j = sum_i g_ij. Changed: neighbours and densities are exact, not approximate; rows at
equal distance share; a row is kept once at most, with a chance that equals how often it would be drawn, see `draw.py`,
and with a weight for what is above once if asked to; if rows with a probability run out, the others follow by their
distance to the nearest example.
"""

from stages.target.tsds.rule import Tsds

__all__ = ["Tsds"]
