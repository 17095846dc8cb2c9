"""M4, multi-modal moment matching (Alabdulmohsin et al., arXiv:2403.04547): a subset with bounded biases.

Sensitive attributes s_k and labels y_r are 0 or 1 per row. Representation bias is max_k |E s_k - pi_k|, association
bias max_{k,r} |E[y_r | s_k = 1] - E[y_r | s_k = 0]|. Weights q in [0, Q] of mean eta, as near to constant as possible
(least squares), keep |E q (s_k - pi_k)| and |E q (s_k - pi_k)(y_r - E y_r)| within bounds; the set is then drawn with
probability q / Q.

Changed: rows with equal attributes have equal weights, so the program is one over the patterns of attributes that
occur, with exact counts, and is solved exactly where the authors descend stochastically over rows. A budget of k of n
rows fixes eta = k / n and Q = 1: q is then the share of a pattern's rows that is kept, and the draw keeps that many of
them, rounded so that the biases stay (see `rounding`), those with the smallest hash(seed, uid), not as many as chance
has it. Weights without a draw are not offered: the authors use them for nothing else.
"""

from stages.target.m4.rule import M4

__all__ = ["M4"]
