"""Against a real server process: `transformers serve` with a tiny LLaVA."""

import base64

import pytest

from schemas.errors import CuveeError
from stages.raters.backend import RaterSample
from stages.raters.openai_rater import OpenAI
from stages.raters.prompt import prompt
from stages.raters.rubric import Question, load_rubric
from stages.spending import Spent
from tests.stages.raters.chat_server import ChatServer

QUESTIONS = load_rubric("mlm_filter").questions


def test_the_prompt_arrives_as_in_process(server: ChatServer, samples: list[RaterSample]) -> None:
    """The same chat through transformers in this process gives the same answers."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(server.folder)
    processor = AutoProcessor.from_pretrained(server.folder)
    bias = {(int(token),): value for token, value in server.numbers.items()}

    def said(sample: RaterSample, question: Question) -> str:
        assert sample.image is not None
        url = f"data:image/png;base64,{base64.b64encode(sample.image).decode()}"
        content = [{"type": "image", "url": url}, {"type": "text", "text": prompt(sample.caption, question)}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=1, sequence_bias=bias)
        return str(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))

    found = OpenAI(**server.settings()).open().rate(samples, QUESTIONS)
    assert [[answer.value for answer in row] for row in found] == [
        [float(said(sample, question)) for question in QUESTIONS] for sample in samples
    ]
    assert len({answer.value for row in found for answer in row}) > 1


def test_the_image_arrives_and_tokens_are_counted(server: ChatServer, samples: list[RaterSample]) -> None:
    price = {"input_per_1m": 1.0, "output_per_1m": 10.0}

    def spent(sample: RaterSample) -> Spent:
        rater = OpenAI(**server.settings(price=price, budget={"requests": 100, "cost": 1.0})).open()
        rater.rate([sample], QUESTIONS[:2])
        return rater.ledger.spent()  # type: ignore[attr-defined, no-any-return]

    seen, unseen = spent(samples[0]), spent(RaterSample(None, samples[0].caption))
    assert seen.requests == seen.output_tokens == 2 and not seen.open
    assert seen.cost_nano == 1000 * seen.input_tokens + 10_000 * seen.output_tokens
    assert seen.input_tokens >= unseen.input_tokens + 2 * 16  # 16 patches


def test_prose_is_unparseable(server: ChatServer, samples: list[RaterSample]) -> None:
    from transformers import AutoTokenizer

    (letter,) = AutoTokenizer.from_pretrained(server.folder).encode("z", add_special_tokens=False)
    prose = server.settings(request={"logit_bias": {str(letter): 1000.0}}, max_answer_tokens=4)
    (row,) = OpenAI(**prose).open().rate(samples[:1], QUESTIONS[:2])
    assert [answer.reason for answer in row] == ["unparseable_score"] * 2


def test_a_server_without_logprobs_is_refused(server: ChatServer, samples: list[RaterSample]) -> None:
    with pytest.raises(CuveeError, match="write `logprobs: false`"):
        OpenAI(**server.settings(logprobs=True)).open().rate(samples, QUESTIONS)


def test_another_model_is_refused(server: ChatServer, samples: list[RaterSample]) -> None:
    with pytest.raises(CuveeError, match=r"status 400: .*pinned"):
        OpenAI(**server.settings(model="larger")).open().rate(samples, QUESTIONS)


def test_a_wrong_path_is_refused(server: ChatServer, samples: list[RaterSample]) -> None:
    with pytest.raises(CuveeError, match=r"status 404: .*`base_url` ends"):
        OpenAI(**server.settings(base_url=server.url + "/v2")).open().rate(samples, QUESTIONS)
