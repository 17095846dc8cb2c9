from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from schemas.errors import CuveeError
from stages.train.language_model import LanguageModel
from stages.train.templates import Chat, Plain, Template, Wording, drawn_templates

CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class Told(BaseModel):
    templates: tuple[Wording, ...]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet)
    made.train_from_iterator(["describe the image"], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", chat_template=CHAT)


def test_a_chat_stands_around_the_image(tokenizer: Any) -> None:
    found = Chat(instruction="Describe the image.").template(tokenizer, 0)
    assert tokenizer.decode(found.before) == "<|user|>"
    assert tokenizer.decode(found.between) == "\nDescribe the image.</s><|assistant|>"
    whole = tokenizer.apply_chat_template(
        [{"role": "user", "content": "\nDescribe the image."}], tokenize=False, add_generation_prompt=True
    )
    assert [*found.before, *found.between] == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_without_a_chat_template_there_is_no_chat(tokenizer: Any) -> None:
    import copy

    silent = copy.copy(tokenizer)
    silent.chat_template = None
    with pytest.raises(CuveeError, match="has no chat template; use `templates: \\[plain\\]`"):
        Chat().template(silent, 0)
    silent.chat_template = "hello"
    with pytest.raises(CuveeError, match="makes 'hello' of a question about one image"):
        Chat().template(silent, 0)


def test_templates_by_name_or_with_settings() -> None:
    told = Told.model_validate({"templates": ["plain", {"kind": "chat", "instruction": "What is it?"}, "chat"]})
    assert told.templates == (Plain(), Chat(instruction="What is it?"), Chat())
    for wrong in ("story", {"kind": "chat", "instruction": ""}, {"kind": "plain", "instruction": "x"}):
        with pytest.raises(ValidationError):
            Told.model_validate({"templates": [wrong]})


def test_evaluation_uses_the_first(tokenizer: Any) -> None:
    model = LanguageModel(None, tokenizer, 0, 1, "cpu")
    assert model.said([5], True, 0) == model.addressed([Plain(), Chat()]).said([5], True, 0)
    chat = model.addressed([Chat(), Plain()])
    assert chat.said([5], False, 2).before == Chat().template(tokenizer, 0).before
    assert chat.said([5], False, None).between == (0,), "text alone has no template"
    assert LanguageModel(None, tokenizer, None, 1, "cpu").said([5], False, None).between == (1,)


def test_each_draw_chooses_anew_and_the_same_draw_alike() -> None:
    templates, keys = [Template((1,)), Template((2,)), Template((3,))], [f"k{i}" for i in range(600)]
    first, second = (drawn_templates(templates, keys, turn) for turn in ("7/0", "7/1"))
    assert [first.count(template) for template in templates] == pytest.approx([200] * 3, abs=50)
    assert first != second and first == drawn_templates(templates, keys, "7/0")
    assert drawn_templates(templates, keys[5:9], "7/0") == first[5:9], "whatever else is drawn"
    assert drawn_templates(templates[:1], keys, "7/0") == templates[:1] * 600
