"""The two maps and the temperature between them."""

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import xxhash

from stages.train.contrastive_probe.pairs import ContrastiveProbe

if TYPE_CHECKING:
    pass

START_SCALE, MOST_SCALE = 1 / 0.07, 100.0


def maps(settings: ContrastiveProbe, images: int, captions: int, seed: str) -> Any:
    """The probe at its start, the same for equal seeds."""
    import torch

    generator = torch.Generator().manual_seed(xxhash.xxh3_64_intdigest(f"probe/{seed}".encode()) >> 1)

    def tower(width: int) -> torch.nn.Module:
        sizes = [width, *([settings.hidden] if settings.hidden else []), settings.width]
        layers: list[torch.nn.Module] = []
        for wide, narrow in pairwise(sizes):
            layer = torch.nn.Linear(wide, narrow, bias=False)
            torch.nn.init.normal_(layer.weight, std=wide**-0.5, generator=generator)
            layers += [*([torch.nn.GELU()] if layers else []), layer]
        return torch.nn.Sequential(*layers)

    class Probe(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.images, self.captions = tower(images), tower(captions)
            self.log_scale = torch.nn.Parameter(torch.tensor(math.log(START_SCALE)))

        def scale(self) -> torch.Tensor:
            return self.log_scale.exp().clamp(max=MOST_SCALE)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            normalize = torch.nn.functional.normalize
            return normalize(self.images(x), dim=1), normalize(self.captions(y), dim=1)

    return Probe()
