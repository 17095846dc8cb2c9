"""The transformers rater on real, tiny, untrained models of three architectures."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from schemas.errors import RecipeError
from stages.raters.answers import AnswerTrie
from stages.raters.backend import RaterSample
from stages.raters.multimodal_model import ALL_AT_ONCE, SEPARATE, MultimodalModel, Prompts, Way, Written, load_model
from stages.raters.prompt import prompt
from stages.raters.rubric import Question, load_rubric
from stages.raters.transformers_rater import TransformersBackend, TransformersRater
from stages.raters.tree_pass import After
from tests.stages.raters.tiny_mllm import REPLY, made, tokenizer, word_pieces, write_llava

MODELS = ("llava", "llava_whole_numbers", "qwen2_vl", "idefics3", "llava_bpe_line", "llava_bpe_reply")
QUESTIONS = (*load_rubric("mlm_filter").questions, *load_rubric("dataman").questions[-2:])


@cache
def rater(name: str, **settings: object) -> TransformersRater:
    backend = TransformersBackend.model_validate(
        {"model": str(made(name)), "device": "cpu", "least_mass": 0.0, **settings}
    )
    backend.check()
    return backend.open()


def probabilities(of: TransformersRater, sample: RaterSample, way: Way = ALL_AT_ONCE) -> list[np.ndarray]:
    return of._chances(of._prompts(_picture(sample), sample.caption, QUESTIONS), QUESTIONS, way)


def _picture(sample: RaterSample):
    from stages.pixels import decode, flat_rgb

    assert sample.image is not None
    return flat_rgb(decode(sample.image))


@pytest.mark.parametrize("name", MODELS)
class TestSharing:
    def test_prompts_that_share_their_beginning_give_what_separate_ones_give(
        self, name: str, samples: list[RaterSample]
    ) -> None:
        assert rater(name).way == ALL_AT_ONCE
        for sample in samples:
            expected = probabilities(rater(name), sample, SEPARATE)
            for way in (ALL_AT_ONCE, Way(True, False), Way(False, True)):
                for one, other in zip(probabilities(rater(name), sample, way), expected, strict=True):
                    assert one == pytest.approx(other, abs=1e-6)

    def test_scores_equal_separate_ones(self, name: str, samples: list[RaterSample]) -> None:
        shared = rater(name).rate(samples, QUESTIONS)
        separate = TransformersRater(rater(name).model, rater(name).settings, way=SEPARATE).rate(samples, QUESTIONS)
        for ours, theirs in zip(shared, separate, strict=True):
            assert [a.value for a in ours[:-1]] == pytest.approx([a.value for a in theirs[:-1]], abs=1e-4)
            assert ours[-1] == theirs[-1]

    def test_equal_to_whole_forward_passes_without_any_cache(self, name: str, samples: list[RaterSample]) -> None:
        """One number's probability, token by token, each from a pass over the whole text by the processor itself."""
        import torch

        model, asked = rater(name).model, QUESTIONS[0]
        found = probabilities(rater(name), samples[0])[0]
        words = prompt(samples[0].caption, asked, model.special_tokens)
        turn, chance = model._turn(words, True), 0.0
        begin = len(model.tokenize(turn))
        for path in {tuple(model.tokenize(turn + spelling)[begin:]) for spelling in ("37", " 37")}:
            inputs = model.processor(text=[turn], images=[_picture(samples[0])], return_tensors="pt")
            size, log = inputs["input_ids"].shape[1], 0.0
            for token in path:
                with torch.inference_mode():
                    log += float(model.model(**inputs).logits[0, -1].double().log_softmax(-1)[token])
                for key, value in list(inputs.items()):
                    if value.shape == (1, size):
                        more = {"input_ids": token, "attention_mask": 1}.get(key, 0)
                        inputs[key] = torch.cat([value, torch.tensor([[more]])], dim=1)
                size += 1
            chance += float(np.exp(log))
        assert found[37] == pytest.approx(chance, rel=1e-4)

    def test_a_sample_is_not_touched_by_its_neighbours(self, name: str, samples: list[RaterSample]) -> None:
        together = rater(name).rate(samples, QUESTIONS)
        assert [rater(name).rate([sample], QUESTIONS)[0] for sample in samples[::-1]] == together[::-1]


def test_a_window_of_attention_is_kept(samples: list[RaterSample]) -> None:
    """A mask of our own would lift it, so the questions are asked in turn, on the shared beginning."""
    windowed = rater("llava_windowed")
    assert windowed.way == Way(shared=True, packed=False)
    expected = probabilities(windowed, samples[0], SEPARATE)
    for one, other in zip(probabilities(windowed, samples[0], windowed.way), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


def test_a_model_that_gives_something_else_when_shared_is_asked_separately(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one whose image sees what comes after it would."""
    of, plain = rater("llava"), TransformersRater._after

    def seeing(self: TransformersRater, prompts: Prompts, asked: Sequence[Question], way: Way) -> After:
        found = plain(self, prompts, asked, way)
        return [{path: logs + 0.1 * way.shared for path, logs in one.items()} for one in found]

    def refusing(self: TransformersRater, prompts: Prompts, asked: Sequence[Question], way: Way) -> After:
        if way.packed or way.shared:
            raise TypeError("no cache from outside")
        return plain(self, prompts, asked, way)

    monkeypatch.setattr(TransformersRater, "_after", seeing)
    assert of.best_way() == Way(shared=False, packed=True)
    monkeypatch.setattr(TransformersRater, "_after", refusing)
    assert of.best_way() == SEPARATE


@pytest.mark.parametrize("name", MODELS)
def test_image_and_caption_both_count(name: str, samples: list[RaterSample]) -> None:
    first, second = samples[:2]
    mixed = RaterSample(second.image, first.caption)
    one, other, third = (probabilities(rater(name), sample)[0] for sample in (first, mixed, second))
    assert abs(one - other).max() > 1e-9 and abs(other - third).max() > 1e-9


def test_digits_by_single_tokens_take_one_pass_less() -> None:
    whole, split = rater("llava_whole_numbers"), rater("llava")
    assert whole._trie(QUESTIONS[0]).asked() == []
    assert split._trie(QUESTIONS[0]).asked() != []


WORDS: dict[str, Any] = {
    "bytes": lambda: tokenizer((REPLY,)),
    "bytes, whole numbers": lambda: tokenizer((REPLY,), whole_numbers=True),
    "bpe": lambda: word_pieces("bpe"),
    "unigram": lambda: word_pieces("unigram"),
}
SAID = [f"{space}{words}" for space in ("", " ") for words in ("7", "75", "100", "art", "caption", "is it a 3 there?")]


@pytest.mark.parametrize("end", ["ASSISTANT\n", "ASSISTANT:\n\n", "ASSISTANT: ", REPLY, "ASSISTANT:"])
@pytest.mark.parametrize("name", WORDS)
def test_an_answer_s_tokens_are_those_that_go_on_from_the_prompt(name: str, end: str) -> None:
    """Where they are joined with the prompt's end, those that spell the answer and nothing more."""
    words = WORDS[name]()
    turn = f"USER: How good is it?\n{end}"
    processor = SimpleNamespace(tokenizer=words, chat_template="", apply_chat_template=lambda *_, **__: turn)
    model = MultimodalModel(None, processor, "cpu", 1)
    tokens, before, joined = model.answers_to("How good is it?"), model.tokenize(turn), []
    for said in SAID:
        whole = model.tokenize(turn + said)
        if whole[: len(before)] == before:
            assert tokens(said) == whole[len(before) :]
        else:
            joined.append(said)
            assert "".join(words.convert_ids_to_tokens(tokens(said))).translate({0x2581: " ", 0x120: " "}) == said
        if name.startswith("bytes"):
            assert tokens(said) == model.tokenize(said), "as it would be by itself: no space is put before such text"
    assert bool(joined) == (end == "ASSISTANT: "), "caption is a word's beginning there, which holds the space"


@pytest.mark.parametrize("name", ["llava_bpe_line", "llava_bpe_space", "llava_bpe_reply"])
def test_what_a_model_writes_right_behind_its_turn_is_an_answer(
    name: str, samples: list[RaterSample], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = rater(name, least_mass=0.9)
    turn = of.model._turn("How good is it?", True)

    def writes(said: str, path: tuple[int, ...]) -> np.ndarray:
        tokens = of.model.tokenize(turn + said)[len(of.model.tokenize(turn)) :]
        chances = np.full(len(of.model.tokenizer), 1e-9)
        chances[[*tokens, 2][len(path)] if list(path) == tokens[: len(path)] else 0] = 1.0
        return np.log(chances / chances.sum())

    def after(_: MultimodalModel, prompts: Prompts, paths: Sequence[Sequence[tuple[int, ...]]], way: Way) -> After:
        return [{path: writes("75", path) for path in ((), *mine)} for mine in paths]

    monkeypatch.setattr(MultimodalModel, "after", after)
    scores = of.rate(samples[:1], QUESTIONS[:2])[0]
    assert [(answer.value, answer.reason) for answer in scores] == [(pytest.approx(75.0), None)] * 2


def test_what_is_no_answer_has_a_reason(samples: list[RaterSample]) -> None:
    strict = rater("llava", least_mass=1.0)
    assert {(a.value, a.reason) for a in strict.rate(samples, QUESTIONS)[0]} == {(None, "unparseable_score")}


def overflowing(folder: Path) -> Path:
    """Activations beyond 65504, the largest number of fp16."""
    from transformers import AutoModelForImageTextToText

    model = AutoModelForImageTextToText.from_pretrained(write_llava(folder))
    for name, weights in model.named_parameters():
        if "language_model" in name and "_proj" in name and "mlp" in name:
            weights.data *= 3000
    model.save_pretrained(folder)
    return folder


def test_numbers_beyond_the_format_are_no_scores(samples: list[RaterSample], tmp_path: Path) -> None:
    settings = {"model": str(overflowing(tmp_path)), "device": "cpu", "least_mass": 0.0}
    with pytest.raises(RecipeError, match="use bf16 or fp32"):
        TransformersBackend(**settings, dtype="fp16").open()
    sound = TransformersBackend(**settings).open()
    half = load_model(tmp_path, dtype="fp16")
    found = TransformersRater(half, sound.settings, way=SEPARATE).rate(samples[:1], QUESTIONS)
    assert {(answer.value, answer.reason) for answer in found[0]} == {(None, "model_overflow")}
    assert {answer.reason for answer in sound.rate(samples[:1], QUESTIONS)[0]} == {None}


def test_an_image_that_does_not_decode_and_a_caption_without_end(samples: list[RaterSample]) -> None:
    broken, endless = RaterSample(b"no image", "a dog"), RaterSample(samples[0].image, "\x00" * 100_000)
    answers = rater("llava").rate([broken, endless, samples[0]], QUESTIONS)
    assert {answer.reason for answer in answers[0]} == {"not_an_image"}
    assert {answer.reason for answer in answers[1]} == {"prompt_too_long"}
    assert all(answer.reason is None for answer in answers[2])


def test_generated_answers_are_parsed(samples: list[RaterSample], monkeypatch: pytest.MonkeyPatch) -> None:
    writer = rater("llava", answer="generate")
    assert {answer.reason for answer in writer.rate(samples[:1], QUESTIONS)[0]} <= {None, "unparseable_score"}
    said = ["75", "Score: 30/100", "no idea", "It is 8", "4", "art."]
    monkeypatch.setattr(MultimodalModel, "generate", lambda *_: [Written(text, False) for text in said])
    values = [answer.value for answer in writer.rate(samples[:1], QUESTIONS)[0]]
    assert values == [75, 30, None, 8, 4, "art"]
    monkeypatch.setattr(MultimodalModel, "generate", lambda *_: [Written(text, True) for text in said])
    values = [answer.value for answer in writer.rate(samples[:1], QUESTIONS)[0]]
    assert values == [75, 30, None, None, 4, "art"]


def test_an_answer_without_an_end_is_cut(samples: list[RaterSample]) -> None:
    model = rater("llava").model
    prompts = model.prompts(_picture(samples[0]), ["How good is it?"])
    (cut,) = model.generate(prompts, 3)
    (first, *_) = model.model.generate(
        **model._cut(prompts, prompts.rows[0], len(prompts.rows[0])), max_new_tokens=1, do_sample=False
    )[0][len(prompts.rows[0]) :]
    ends = model.model.generation_config.eos_token_id
    try:
        model.model.generation_config.eos_token_id = [ends, int(first)]
        (ended,) = model.generate(prompts, 1)
    finally:
        model.model.generation_config.eos_token_id = ends
    assert (cut.cut, ended.cut) == (True, False)


class TestCheck:
    def test_a_folder_that_is_no_such_model_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="neither a folder"):
            TransformersBackend(model=str(tmp_path / "absent")).check()
        (tmp_path / "config.json").write_text('{"model_type": "bert"}')
        with pytest.raises(RecipeError, match="'bert'"):
            TransformersBackend(model=str(tmp_path)).check()
        (tmp_path / "config.json").write_text('{"model_type": "llava", "auto_map": {"AutoConfig": "evil.Config"}}')
        with pytest.raises(RecipeError, match="does not load"):
            TransformersBackend(model=str(tmp_path)).open()

    def test_the_identity_is_the_content(self, tmp_path: Path) -> None:
        first, second = (TransformersBackend(model=str(write_llava(tmp_path / name))) for name in ("a", "b"))
        assert first.identity() == second.identity()
        assert str(tmp_path) not in str(first.identity())
        config = tmp_path / "b" / "config.json"
        config.write_text(config.read_text() + "\n")
        assert first.identity() != second.identity()


def test_a_trie_of_every_rubric_can_be_made() -> None:
    model = rater("llava").model
    for question in QUESTIONS:
        trie = AnswerTrie.of(question.answers(), model.tokenize, model.digits)
        assert {number for _, number in trie.paths} == set(range(len(question.answers())))


def test_a_question_alone_shares_nothing_and_is_answered(samples: list[RaterSample]) -> None:
    alone = rater("qwen2_vl").rate(samples[:1], QUESTIONS[:1])[0][0]
    among = rater("qwen2_vl").rate(samples[:1], QUESTIONS)[0][0]
    assert alone.value == pytest.approx(among.value, abs=1e-4)
    assert Question(name="x", text="y").answers()[-1] == "100"
