"""`cuvee llava`: a connector that a run trained, with the models around it, as a folder that transformers loads."""

from pathlib import Path
from typing import Any

from pipeline.proof import settings
from pipeline.sidecars import read_json
from pipeline.training.cards import README
from pipeline.training.contestants import RECORD, newest_run, recipe_of
from schemas.errors import RecipeError
from stages.train.connector import CARD, ConnectorCard, load_connector
from stages.train.language_model import load_language_model
from stages.train.llava import MOST_APART, write_llava
from stages.train.vision_tower import load_tower

HEAD = "---\nlibrary_name: transformers\npipeline_tag: image-text-to-text\n---\n\n"
LOADING = """## Loading

```python
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

folder = "."
processor = AutoProcessor.from_pretrained(folder)
model = AutoModelForImageTextToText.from_pretrained(folder)
asked = processor.apply_chat_template([{"role": "user", "content": [{"type": "image"}]}])
inputs = processor(images=Image.open("photo.jpg"), text=asked, add_special_tokens=False, return_tensors="pt")
said = model.generate(**inputs)[0, inputs["input_ids"].shape[1] :]
print(processor.decode(said, skip_special_tokens=True))
```
"""


def export_llava(place: Path, out: Path, arm: str = "curated", seed: int = 0) -> dict[str, Any]:
    """Write the folder `out` from a run's connector.

    Args:
        place: a run's folder, or a workspace or recipe, of which the newest run is meant.
        out: appears complete or not at all; there must be nothing of that name.
        arm: whose connector.
        seed: number of the seed.

    Raises:
        RecipeError: no such connector, or a connector or model that has no LLaVA form, with what to do.
    """
    run = newest_run(place)
    record = read_json(run / RECORD)
    folder = _connector(run, record, f"{arm}-{seed}")
    given = settings(recipe_of(record))
    card = ConnectorCard.model_validate_json((folder / CARD).read_text())
    bridge, _ = load_connector(
        folder,
        vision=given.vision_identity,
        language_model=given.language_identity,
        inject_layer=card.inject_layer,
        options=card.options,
    )
    kind, layer = card.connector.features, card.vision_layer
    tower = load_tower(given.vision_model, given.vision_pretrained, given.visual_tokens, kind=kind, layer=layer)
    language = load_language_model(given.language_folder).addressed((card.template,))
    apart = write_llava(out, bridge, tower, language, given.max_tokens)
    (out / README).write_text(_card(folder, apart))
    return {"folder": str(out), "connector": str(folder), "run": record["run"], **apart}


def _connector(run: Path, record: dict[str, Any], name: str) -> Path:
    root = run.resolve().parents[1]
    results: list[Path] = [root / "fits" / fit / "result.json" for fit in record["fits"] if fit.startswith("train-")]
    folders = [file.parent for file in results if file.exists() and read_json(file) == record["training"]]
    found = [folder / "connectors" / name for folder in folders]
    if not any((folder / CARD).is_file() for folder in found):
        there = sorted(path.name for folder in folders for path in (folder / "connectors").glob("*"))
        raise RecipeError(f"run {record['run']} has no connector {name!r}; it has {', '.join(there) or 'trained none'}")
    return next(iter(folder for folder in found if (folder / CARD).is_file()))


def _card(connector: Path, apart: dict[str, float]) -> str:
    own = (connector / README).read_text() if (connector / README).is_file() else "# Vision-language connector\n"
    title, _, rest = own.partition("\n")
    rest = rest[rest.index("## Models") :] if "## Models" in rest else rest.strip() + "\n"
    return (
        f"{HEAD}{title}\n\n"
        "A LLaVA-style model for transformers: image tower, projector and language model in one folder. The tower and\n"
        "the language model are those that the connector was trained between, unchanged; their licences hold here.\n"
        f"Its logits for generated images were within {apart['largest_difference']:.1e} of the trained models' when\n"
        f"it was written (at most {MOST_APART:g} of the largest is allowed).\n\n{LOADING}\n{rest}"
    )
