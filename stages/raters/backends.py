"""Every backend, for the `backend:` of a stage."""

from typing import Annotated

from pydantic import Field

from stages.raters.openai_rater import OpenAI
from stages.raters.transformers_rater import TransformersBackend
from stages.raters.vllm_rater import VLLM

Backend = Annotated[TransformersBackend | OpenAI | VLLM, Field(discriminator="kind")]
