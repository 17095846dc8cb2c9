"""A causal language model's own step from hidden states to logits, for the few places whose logits are wanted.

What stands between the last hidden state and the logits differs between models: a bias, a scale, a soft cap, a
projection. So the model's own forward pass is used, with the layers inside it replaced by what they returned.
"""

import copy
from typing import Any

from schemas.errors import CuveeError
from stages.train.agreement import agree


def label_head(model: Any) -> Any:
    """The model without its layers: called with `inputs_embeds` (1, n, d), the last hidden states, it gives logits.

    Parameters are shared with the model.

    Raises:
        CuveeError: its logits would not be those of the model.
    """
    import torch
    from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions as Output

    class Given(torch.nn.Module):
        """Stands for the layers."""

        def forward(self, *_: Any, inputs_embeds: torch.Tensor, **__: Any) -> Output:
            return Output(last_hidden_state=inputs_embeds)

    head = copy.copy(model)
    given = Given()
    given.decoder = Given()  # some models call the decoder inside their layers' module
    head.__dict__["_modules"] = {**model._modules, model.base_model_prefix: given}
    _refuse_other_logits(model, head)
    return head


def _refuse_other_logits(model: Any, head: Any) -> None:
    import torch

    device = next(model.parameters()).device
    ids = torch.arange(3, device=device)[None] % model.config.get_text_config().vocab_size
    with torch.inference_mode():
        wanted = model(ids, use_cache=False).logits
        try:
            found = head(inputs_embeds=model.base_model(ids, use_cache=False).last_hidden_state).logits
        except (AttributeError, TypeError, KeyError) as error:
            raise CuveeError(_unknown(model, f"its layers cannot be told from the rest ({error})")) from error
    if not agree(found, wanted):
        raise CuveeError(_unknown(model, "logits from its hidden states are not those that it gives itself"))


def _unknown(model: Any, why: str) -> str:
    return f"language model {type(model).__name__} cannot be trained with: {why}; name another kind of model"
