"""The Q-Former of BLIP-2 (arXiv:2301.12597): learned queries that read the image by cross-attention.

Built from transformers' `Blip2QFormerModel`. Trained by the language model's loss alone; BLIP-2 first trains it to tell
matching captions from others, and where neither that was done nor much data is at hand it loses to an MLP (average of
53.7 against 63.9 in arXiv:2410.07167, table 4), so start it from a trained one (`pretrained`) where you can.
"""

from typing import Literal

from stages.train.connectors.querying import QueryingSettings


class QFormer(QueryingSettings):
    """32 tokens from however many features."""

    kind: Literal["qformer"] = "qformer"
