"""GOT-D: rows that pull the training distribution toward the target (Kang et al., arXiv:2405.02774).

A model behaves as if trained on (1 - l) D_pretrain + l D_selected. To first order the optimal transport distance of it
to the target falls fastest where the potential f is lowest, so the rows with the most negative calibrated gradient are
kept, g_i = f_i - mean over j != i of f_j (LAVA, Just et al., arXiv:2305.00054). Changed: transports are exact and not
entropic; a few thousand rows stand for the pool, in batches that each meet the whole target and whose potentials are
averaged (after SAVA, Kessler et al., arXiv:2406.01130), and every row is weighed through the c-transform. The paper
selects once, here potentials are learned anew after each tenth of the budget.
"""

from stages.target.got_d.rule import GotD

__all__ = ["GotD"]
