"""The second read: the drawn samples, byte for byte, as shards for any trainer. One output format, one file."""

from pipeline.export.draws import Draws, blend_draws
from pipeline.export.export import export, refuse_foreign

__all__ = ["Draws", "blend_draws", "export", "refuse_foreign"]
