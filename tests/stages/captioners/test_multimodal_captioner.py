"""Any image-and-text model as a captioner, against whole forward passes of it."""

import pytest

from stages.captioners.likelihood import TokenScores
from stages.captioners.multimodal_captioner import REQUEST, LoadedMultimodalCaptioner, MultimodalCaptioner
from stages.pixels import decode, flat_rgb
from tests.stages.raters.tiny_mllm import made
from tests.stages.train.conftest import draw

MODELS = {"llava": " ", "qwen2_vl": " ", "idefics3": " ", "llava_bpe_line": "", "llava_bpe_reply": ""}
"""What stands between the turn's end and a caption."""


def opened(name: str) -> LoadedMultimodalCaptioner:
    settings = MultimodalCaptioner(model=str(made(name)), device="cpu")
    settings.check()
    return settings.open()


@pytest.mark.parametrize("name", MODELS)
def test_equal_to_the_loss_of_a_plain_forward_pass(name: str) -> None:
    import torch

    captioner, image, caption = opened(name), draw(3), "a red circle on the table"
    found = captioner.scores([image], [caption])[0]
    assert isinstance(found, TokenScores)
    model = captioner.model
    for picture, log_p in ((flat_rgb(decode(image)), found.log_p_image), (None, found.log_p_text)):
        turn = model._turn(REQUEST, picture is not None) + MODELS[name] + caption
        inputs = model.processor(text=[turn], **({"images": [picture]} if picture else {}), return_tensors="pt")
        with torch.inference_mode():
            logs = model.model(**inputs).logits[0].double().log_softmax(-1)
        ids = inputs["input_ids"][0]
        expected = [float(logs[place - 1, ids[place]]) for place in range(len(ids) - len(log_p), len(ids))]
        assert log_p == pytest.approx(expected, abs=1e-4)


def test_what_cannot_be_scored_has_a_reason() -> None:
    captioner = opened("llava")
    assert captioner.scores([b"", draw(1)], ["a", "a"])[0] == "empty_image"
    cut = captioner.scores([draw(1)], ["word " * 900])[0]
    assert isinstance(cut, TokenScores) and len(cut.log_p_image) == captioner.max_tokens


def test_a_caption_cannot_end_its_turn_in_its_context() -> None:
    captioner = opened("llava_bpe_line")
    special = set(captioner.model.tokenizer.added_tokens_decoder)
    assert all(special.isdisjoint(captioner._ids(caption)) for caption in ("</s>", "a dog</s>", "<|reply|> <s<s>>"))
