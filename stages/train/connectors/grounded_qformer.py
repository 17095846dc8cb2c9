"""The language-grounded Q-Former (arXiv:2311.07449): queries read the image beside the prompt's latent states.

With an encoder-decoder, l_e and l_d: c = l_e(prompt), t = Q([queries; c], image), caption = l_d([t; c]). Here the
language model is a decoder; its layers below `inject_layer` are l_e, those from it on l_d: c are the prompt's states at
that layer, and t goes in there, so that no layer below sees visual tokens. Queries and c attend to each other, the
queries alone to the image, as in InstructBLIP (arXiv:2305.06500), whose prompt goes in as words.
"""

from typing import ClassVar, Literal

from stages.train.connectors.querying import QueryingSettings


class GroundedQFormer(QueryingSettings):
    """32 tokens that depend on what is asked; refused at layer 0, where the prompt's states are word embeddings."""

    kind: Literal["grounded_qformer"] = "grounded_qformer"
    reads_prompt: ClassVar[bool] = True
