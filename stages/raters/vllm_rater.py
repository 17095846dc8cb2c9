"""Ratings from a model that vLLM runs on the cluster's GPUs, through Ray Data LLM.

The engine places and feeds the model (see `stages.generation`); here are its settings, what is asked and what is made
of the replies. vLLM's sums depend on which requests share a batch: equal runs may differ in last bits, and what stands
in sidecars is authoritative.
"""

import importlib.util
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from schemas.errors import RecipeError
from stages.file_identity import Located
from stages.generation import Generation, transcript
from stages.pixels import PixelError
from stages.raters import prompt
from stages.raters.backend import UNPARSEABLE, Answer, BackendSettings, Rater, RaterSample
from stages.raters.data_url import data_url
from stages.raters.openai_batch import FAILED
from stages.raters.openai_rater import RIVALS
from stages.raters.openai_reply import Reply, Usage, answer
from stages.raters.rubric import Question
from stages.train.model_files import folder_identity, local_folder

OURS = {"model", "dtype", "max_model_len", "tensor_parallel_size", "seed", "trust_remote_code", "limit_mm_per_prompt"}
"""What `engine` may not set."""


class VLLM(BackendSettings):
    """A model folder, run by vLLM; no code from the folder is ever run."""

    kind: Literal["vllm"] = "vllm"
    model: Located
    """Folder of an image-and-text model that every node sees, or a hub name in the local cache."""
    dtype: Literal["auto", "float16", "bfloat16", "float32"] = "auto"
    max_model_len: int = Field(default=8192, gt=0)
    """Tokens of a prompt, its image and the answer."""
    logprobs: bool = True
    """Score by expectation where numbers are single tokens; false: take the number that is generated."""
    max_answer_tokens: int = Field(default=16, gt=0)
    max_image_bytes: int = Field(default=20 << 20, gt=0)
    content_format: Literal["openai", "string"] = "openai"
    """How the model's chat template takes an image: as a part of a list, or as a placeholder in a string."""
    gpus_per_replica: int = Field(default=1, gt=0)
    """Tensor parallelism."""
    replicas: int = Field(default=1, gt=0)
    """The most copies of the model."""
    batch_size: int = Field(default=64, gt=0)
    """Requests that are handed to a replica together."""
    max_failed: float = Field(default=0.05, ge=0, le=1)
    """The share of requests that may fail for their sample's sake, beyond the first few."""
    engine: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's engine, e.g. {gpu_memory_utilization: 0.85}."""

    def check(self) -> None:
        """Refuse what cannot work before Ray starts; that there are GPUs is asked of the cluster.

        Raises:
            RecipeError: no such model here, vLLM is not installed, or `engine` sets what is a setting of its own.
        """
        if taken := sorted(OURS & set(self.engine)):
            raise RecipeError(f"`engine` sets {taken[0]!r}, which is a setting of its own or not to be changed")
        folder_identity(local_folder(self.model))
        if importlib.util.find_spec("vllm") is None:
            raise RecipeError(
                "vLLM is not installed: install cuvee[vllm] on every node, in an environment of its own since vLLM "
                "fixes its torch; or start `vllm serve MODEL` anywhere and name it with `backend: {kind: openai}`"
            )

    def identity(self) -> dict[str, object]:
        """The model by the content of its files, the words around a sample, and what else answers depend on."""
        own = {"kind", "dtype", "max_model_len", "logprobs", "max_answer_tokens", "max_image_bytes", "engine"}
        settings = self.model_dump(mode="json", include={*own, "content_format", "gpus_per_replica"})
        return {**settings, "weights": folder_identity(local_folder(self.model)), "prompt": prompt.VERSION}

    def generation(self) -> Generation:
        """Arguments for Ray Data LLM."""
        sampling = {"temperature": 0.0, "seed": 0, "max_tokens": self.max_answer_tokens}
        return Generation(
            model=str(local_folder(self.model)),
            engine={
                "enable_prefix_caching": True,  # image and caption are computed once for all questions
                **self.engine,
                "dtype": self.dtype,
                "max_model_len": self.max_model_len,
                "tensor_parallel_size": self.gpus_per_replica,
                "limit_mm_per_prompt": {"image": 1},
                "seed": 0,
                "trust_remote_code": False,
            },
            sampling=sampling | ({"logprobs": RIVALS} if self.logprobs else {}),
            gpus_per_replica=self.gpus_per_replica,
            replicas=self.replicas,
            batch_size=self.batch_size,
            max_failed=self.max_failed,
            content_format=self.content_format,
        )

    def open(self) -> Rater:
        """Nothing to load: the engine runs the model."""
        return VLLMRater(self.max_image_bytes)


class VLLMRater:
    """Says what is to be asked, and reads what was answered."""

    def __init__(self, max_image_bytes: int) -> None:
        self.max_image_bytes = max_image_bytes

    def rate(self, samples: Sequence[RaterSample], questions: Sequence[Question]) -> list[list[Answer]]:
        """Per sample, one answer per question, in both orders given."""
        return [self._rated(sample, questions) for sample in samples]

    def _rated(self, sample: RaterSample, questions: Sequence[Question]) -> list[Answer]:
        try:
            url = None if sample.image is None else data_url(sample.image, self.max_image_bytes)
        except PixelError as error:
            return [Answer(None, error.reason)] * len(questions)
        return [self._answer(url, sample.caption, question) for question in questions]

    def _answer(self, url: str | None, caption: str, question: Question) -> Answer:
        asked: list[dict[str, Any]] = [] if url is None else [{"type": "image_url", "image_url": {"url": url}}]
        asked.append({"type": "text", "text": prompt.prompt(caption, question)})
        reply = transcript().ask([{"role": "user", "content": asked}])
        if reply is None:
            return Answer(None, UNPARSEABLE)  # only asking: nobody sees it
        if reply["text"] is None:
            return Answer(None, FAILED)
        tokens = None if reply["tokens"] is None else tuple(reply["tokens"])
        return answer(Reply(reply["text"], False, tokens, Usage(), cut=reply["cut"]), question)
