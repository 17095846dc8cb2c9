"""The connector that this project trained, between its image tower and its language model, as a captioner.

So a pool can be scored again by what the last round's training produced. The text-only side is the language model
alone: what it says does not depend on the connector.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from schemas.errors import CuveeError, RecipeError
from stages.captioners.likelihood import CaptionerSettings, TokenScores, plain_tokens, token_scores
from stages.file_identity import Located
from stages.pixels import PixelError, decode, flat_rgb
from stages.train.connector import CARD, ConnectorCard, load_connector
from stages.train.language_model import LanguageModel, load_language_model
from stages.train.layout import lay_out
from stages.train.model_files import folder_identity
from stages.train.settings import TrainSettings
from stages.train.vision_tower import BATCH, VisionTower, load_tower

if TYPE_CHECKING:
    from stages.train.bridge import Shown

ROWS = 8
"""Captions of one pass of the language model: those that follow each other among a batch's sound rows."""
ARM = "curated-0"
"""Which of a run's connectors: that of the curated set and the first seed."""


class ConnectorCaptioner(CaptionerSettings):
    """A trained connector with the models it was trained between; other models are refused."""

    kind: Literal["connector"] = "connector"
    connector: Located
    """The folder of a connector, or that of a run whose training made one (the curated set's, first seed)."""
    vision_model: Located
    """The image tower it was trained behind: open_clip name, `local-dir:PATH` or the path of such a folder."""
    vision_pretrained: Located | None = None
    language_model: Located
    """The language model it was trained before."""
    device: Literal["cpu", "cuda"] = "cpu"

    @cached_property
    def folder(self) -> Path:
        """Where the connector lies.

        Raises:
            RecipeError: there is none.
        """
        named = Path(self.connector)
        places = [named, named / "connectors" / ARM, *_of_run(named)]
        found = next((place for place in places if (place / CARD).is_file()), None)
        if found is None:
            raise RecipeError(
                f"{self.connector!r} is neither the folder of a connector ({CARD} and weights) nor of a run that "
                "trained one; name WORKSPACE/fits/train-.../connectors/NAME or WORKSPACE/runs/RUN"
            )
        return found

    @property
    def _models(self) -> TrainSettings:
        return TrainSettings.model_validate(
            {
                "vision_model": self.vision_model,
                "vision_pretrained": self.vision_pretrained,
                "language_model": self.language_model,
                "budget": {"steps": 1},
            }
        )

    def check(self) -> None:
        """Refuse a connector that is not there, or that was trained between other models."""
        self._models.check()
        try:
            card = ConnectorCard.model_validate_json((self.folder / CARD).read_text())
            models = {"vision": self._models.vision_identity, "language_model": self._models.language_identity}
            card.model_copy(update=models).refuse_other(card, self.folder)
        except (ValueError, CuveeError) as error:
            raise RecipeError(f"caption_likelihood: {error}") from error

    def identity(self) -> dict[str, object]:
        """Settings, and all three models by content."""
        places = {"connector", "vision_model", "vision_pretrained", "language_model"}
        models = {"vision": self._models.vision_identity, "language_model": self._models.language_identity}
        weights = folder_identity(self.folder)
        return {**self.model_dump(mode="json", exclude=places), **models, "weights": weights, "rows": [BATCH, ROWS]}

    def open(self) -> "LoadedConnectorCaptioner":
        """Load tower, connector and language model."""
        import torch

        torch.set_num_threads(self.threads)
        models = self._models
        card = ConnectorCard.model_validate_json((self.folder / CARD).read_text())
        bridge, card = load_connector(
            self.folder,
            vision=models.vision_identity,
            language_model=models.language_identity,
            inject_layer=card.inject_layer,
            options=card.options,
        )
        tower = load_tower(
            self.vision_model,
            self.vision_pretrained,
            card.visual_tokens,
            self.device,
            card.connector.features,
            card.vision_layer,
        )
        language = load_language_model(models.language_folder, self.device).addressed([card.template])
        longest = getattr(language.model.config, "max_position_embeddings", None)
        if longest is not None and card.places + self.max_tokens + 1 > longest:
            raise RecipeError(f"caption_likelihood: lower `max_tokens`; the language model has {longest} places")
        frozen = bridge.train(False).requires_grad_(False).to(self.device)
        return LoadedConnectorCaptioner(tower, frozen, language, self.max_tokens, self.threads)


def _of_run(folder: Path) -> Iterator[Path]:
    """The connector of a run's training, found by its result: the run names no folder."""
    if not (folder / "run.json").is_file():
        return
    training = json.loads((folder / "run.json").read_text()).get("training")
    for result in sorted(folder.parents[1].glob("fits/train-*/result.json")):
        if training is not None and json.loads(result.read_text()) == training:
            yield result.parent / "connectors" / ARM


@dataclass
class LoadedConnectorCaptioner:
    """The three models, loaded."""

    tower: VisionTower
    bridge: Any
    language: LanguageModel
    max_tokens: int
    threads: int

    def scores(self, images: Sequence[bytes], captions: Sequence[str]) -> list[TokenScores | str]:
        """Per pair the scores of its tokens, or why there are none."""
        import torch

        torch.set_num_threads(self.threads)
        found: list[TokenScores | str] = []
        for start in range(0, len(images), BATCH):
            found += self._batch(images[start : start + BATCH], captions[start : start + BATCH])
        return found

    def _batch(self, images: Sequence[bytes], captions: Sequence[str]) -> list[TokenScores | str]:
        pictures = [_picture(image) for image in images]
        tokens = [plain_tokens(self.language.tokenizer, caption)[: self.max_tokens] for caption in captions]
        reasons = [
            picture if isinstance(picture, str) else (None if ids else "no_caption_tokens")
            for picture, ids in zip(pictures, tokens, strict=True)
        ]
        sound = [row for row, reason in enumerate(reasons) if reason is None]
        scores = dict(
            zip(sound, self._sound([pictures[row] for row in sound], [tokens[row] for row in sound]), strict=True)
        )
        return [scores[row] if reason is None else reason for row, reason in enumerate(reasons)]

    def _sound(self, pictures: list[Any], tokens: list[list[int]]) -> Iterator[TokenScores]:
        import torch

        if not pictures:
            return
        with torch.inference_mode():
            visual = torch.from_numpy(self.tower.tokens(pictures)).to(self.language.device).float()
            for start in range(0, len(tokens), ROWS):
                shown = self.language.show(self.bridge, visual[start : start + ROWS])
                yield from self._pass(shown, tokens[start : start + ROWS])

    def _pass(self, shown: "Shown", tokens: list[list[int]]) -> Iterator[TokenScores]:
        language, numbers = self.language, range(len(tokens))
        # No end token: it is not the caption's.
        behind = lay_out([language.said(tokens[row], False, row) for row in numbers], shown.places)
        alone = lay_out([language.said(tokens[row], False, None) for row in numbers], 0)
        with_image = language.label_logits(behind, shown, self.bridge)
        without = language.label_logits(alone, None, None)
        for row in numbers:
            mine = behind.samples == row
            yield token_scores(with_image[mine], without[mine], tokens[row])


def _picture(image: bytes) -> Any:
    try:
        return flat_rgb(decode(image))
    except PixelError as error:
        return error.reason
