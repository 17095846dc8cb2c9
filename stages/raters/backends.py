"""Every backend, for the `backend:` of a stage."""

from typing import Annotated

from pydantic import Field

from stages.raters.openai_rater import OpenAI
from stages.raters.transformers_rater import TransformersBackend

Backend = Annotated[TransformersBackend | OpenAI, Field(discriminator="kind")]
