"""Every backend, for the `backend:` of a stage."""

from stages.raters.transformers_rater import TransformersBackend

Backend = TransformersBackend
