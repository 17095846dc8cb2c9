"""Logit correction: training that does not lean on what only happens to go with a class (arXiv:2212.01433).

A classifier of class y that reads a spurious attribute a well is right on most of a biased set and wrong on the groups
(y, a) that are rare there. What maximises the accuracy averaged over groups is argmax_y P(y | a, x) / P(y, a). So the
logits are trained with the log of the prior added, and used without it:

    L = log sum_y' exp(f_y' + ln D[y', a]) - (f_y + ln D[y, a])

`correction` is that loss; `concept_head` takes an attribute that is known, as a sample's source is; `two_branch`
guesses it by a second network that is made to be biased; `caption_prior` carries the idea over to next-token losses.
"""
