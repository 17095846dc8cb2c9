"""Heads against PyTorch's own modules of the published shapes, and every file that is no head refused."""

import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import save_file
from torch import nn

from schemas.columns import IMAGE_EMBEDDING
from schemas.errors import RecipeError
from stages.alignment.heads.convert import convert_head
from stages.alignment.heads.stage import LinearHead, MlpHead
from stages.alignment.heads.weights import Head, read_head, write_head

IDENTITY, RELU = nn.Identity(), nn.ReLU()


class Sequential(nn.Module):
    """What the published predictors are: a stack called `layers`."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.layers(rows)
        return result


class Nsfw(nn.Module):
    """The torch port of the ViT-L/14 NSFW head: standardised inputs, ReLU, a sigmoid at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.Module()
        self.norm.register_buffer("mean", torch.randn(768) * 0.01)
        self.norm.register_buffer("variance", torch.rand(768) * 1e-3 + 1e-4)
        for number, (into, out) in enumerate(((768, 64), (64, 512), (512, 256), (256, 1)), start=1):
            setattr(self, f"linear_{number}", nn.Linear(into, out))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        rows = (rows - self.norm.mean) / (self.norm.variance.sqrt() + 1e-10)
        for number in range(1, 4):
            rows = torch.relu(getattr(self, f"linear_{number}")(rows))
        return torch.sigmoid(self.linear_4(rows))


def aesthetic(relu: bool) -> nn.Module:
    """improved-aesthetic-predictor, as published (linearMSE) or with its ReLUs (reluMSE)."""
    layers: list[nn.Module] = []
    for (into, out), dropout in zip(((768, 1024), (1024, 128), (128, 64), (64, 16)), (0.2, 0.2, 0.1, 0), strict=True):
        layers += [nn.Linear(into, out)] + [nn.ReLU()] * relu + ([nn.Dropout(dropout)] if dropout else [])
    return Sequential(*layers, nn.Linear(16, 1))


def nsfw_h14() -> nn.Module:
    """CLIP-based-NSFW-Detector for ViT-H/14; no ReLU between the last two layers."""
    widths = (1024, 1024, 2048, 1024, 256, 128)
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Linear(into, out), nn.ReLU(), nn.Dropout(0.2)]
    return Sequential(*layers, nn.Linear(128, 16), nn.Linear(16, 1))


PUBLISHED: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "sa_0_4_vit_l_14_linear": (lambda: nn.Linear(768, 1), 768),
    "sac+logos+ava1-l14-linearMSE": (lambda: aesthetic(relu=False), 768),
    "ava+logos-l14-reluMSE": (lambda: aesthetic(relu=True), 768),
    "clip_ViT-L-14_openai_binary_nsfw_head": (Nsfw, 768),
    "h14_nsfw": (nsfw_h14, 1024),
}


def embeddings(rows: int, width: int) -> np.ndarray:
    noise = np.random.Generator(np.random.Philox(width)).normal(size=(rows, width))
    return (noise / np.linalg.norm(noise, axis=1, keepdims=True)).astype(np.float16)


def batch(rows: list[Any]) -> pa.RecordBatch:
    return pa.record_batch([pa.array(rows, IMAGE_EMBEDDING.type)], pa.schema([IMAGE_EMBEDDING]))


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_heads_come_out_as_pytorch_computes_them(name: str, tmp_path: Path) -> None:
    make, width = PUBLISHED[name]
    torch.manual_seed(0)
    module = make().eval()
    source, target = tmp_path / f"{name}.pth", tmp_path / "head.safetensors"
    torch.save(module.state_dict(), source)
    head = convert_head(source, target)
    rows = embeddings(50, width)
    unit = torch.nn.functional.normalize(torch.from_numpy(rows).double())
    with torch.inference_mode():
        expected = module.double()(unit)[:, 0].numpy()
    kind = LinearHead if len(head.layers) == 1 else MlpHead
    stage = kind(column="score", weights=str(target))
    stage.check()
    found = stage.open()(batch(list(rows)))
    np.testing.assert_allclose(found["score"].to_numpy(), expected, rtol=1e-5, atol=1e-6)
    assert found.schema.names == ["score", f"{stage.kind}_score_reason"] and found[1].null_count == 50
    assert stage.widths() == {"image_embedding": width}
    again = tmp_path / "again.safetensors"
    convert_head(source, again)
    assert again.read_bytes() == target.read_bytes()


def test_an_unknown_stack_has_to_say_what_follows_its_layers(tmp_path: Path) -> None:
    module = Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 2))
    torch.save({"state_dict": module.state_dict(), "epoch": 3}, tmp_path / "own.ckpt")
    with pytest.raises(RecipeError, match=r"linear layers at \(0, 2\).*--hidden relu"):
        convert_head(tmp_path / "own.ckpt", tmp_path / "own.safetensors")
    head = convert_head(tmp_path / "own.ckpt", tmp_path / "own.safetensors", hidden="relu", activation="softmax")
    assert (head.hidden, head.activation, head.outputs) == (("relu",), "softmax", 2)
    stage = MlpHead(column="tag", weights=str(tmp_path / "own.safetensors"))
    with pytest.raises(RecipeError, match="2 outputs and `output` is None"):
        stage.check()
    shares = [
        MlpHead(column="tag", weights=stage.weights, output=output).open()(batch(list(embeddings(5, 8))))[0].to_numpy()
        for output in (0, 1)
    ]
    np.testing.assert_allclose(shares[0] + shares[1], 1, rtol=1e-6)
    with pytest.raises(RecipeError, match="expected 0 to 1"):
        MlpHead(column="tag", weights=stage.weights, output=2).check()


class Harmful:
    def __reduce__(self) -> Any:
        return (sys.exit, (3,))


def test_a_pickle_that_wants_more_than_tensors_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(1, 4), "bias": Harmful()}, tmp_path / "head.pth")
    with pytest.raises(RecipeError, match="could run code"):
        convert_head(tmp_path / "head.pth", tmp_path / "head.safetensors")
    assert not (tmp_path / "head.safetensors").exists()
    (tmp_path / "head.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    with pytest.raises(RecipeError, match="Keras file"):
        convert_head(tmp_path / "head.h5", tmp_path / "head.safetensors")
    torch.save({"weight": torch.full((1, 4), torch.nan), "bias": torch.ones(1)}, tmp_path / "head.pth")
    with pytest.raises(RecipeError, match="NaN"):
        convert_head(tmp_path / "head.pth", tmp_path / "head.safetensors")
    torch.save({"conv.weight": torch.ones(1, 4)}, tmp_path / "head.pth")
    with pytest.raises(RecipeError, match="expected `weight` and `bias`"):
        convert_head(tmp_path / "head.pth", tmp_path / "head.safetensors")


@pytest.mark.parametrize(
    "saved",
    [
        {0: torch.ones(1, 4)},
        {"weight": torch.ones(1, 4).to_sparse(), "bias": torch.ones(1)},
        {"weight": torch.ones(1, 4, device="meta"), "bias": torch.ones(1)},
        {"weight": torch.ones(1, 4, dtype=torch.complex64), "bias": torch.ones(1)},
        {"state_dict": [torch.ones(1, 4)]},
        None,
    ],
    ids=["numbers for names", "sparse", "meta", "complex", "list", "empty file"],
)
def test_what_numpy_cannot_hold_is_refused(saved: Any, tmp_path: Path) -> None:
    file = tmp_path / "head.pth"
    file.touch() if saved is None else torch.save(saved, file)
    with pytest.raises(RecipeError, match=r"head\.pth"):
        convert_head(file, tmp_path / "head.safetensors")


def test_parameters_that_ask_for_gradients_are_converted(tmp_path: Path) -> None:
    torch.save(dict(nn.Linear(4, 1).named_parameters()), tmp_path / "head.pth")
    assert convert_head(tmp_path / "head.pth", tmp_path / "head.safetensors").width == 4


def test_the_job_converts_and_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    from jobs.convert_head import main

    torch.save(nn.Linear(8, 1).state_dict(), tmp_path / "head.pth")
    monkeypatch.setattr(sys, "argv", ["convert_head", str(tmp_path / "head.pth"), str(tmp_path / "head.safetensors")])
    assert main() == 0 and "linear_head, 8 numbers in, 1 out, identity" in capsys.readouterr().out
    (tmp_path / "head.safetensors").unlink()
    rows = np.ones((2, 4), np.float32)
    np.save(tmp_path / "rows.npy", rows)
    np.savez(tmp_path / "rows.npz", rows=rows, others=rows)
    np.save(tmp_path / "zeros.npy", 0 * rows)
    for source, *names, why in (
        ("none.pth", "none.pth' is not there"),
        ("none.npy", "a", "none.npy' is not there"),
        ("rows.npz", "a", "b", "several arrays .rows, others."),
        ("zeros.npy", "a", "b", "zeros.npy' hold NaN, infinity or zeros"),
        ("rows.npy", "a", "expected 1 rows"),
    ):
        words = ["--names", *names] if names else []
        told = [str(tmp_path / source), str(tmp_path / "new/folder/head.safetensors"), *words]
        monkeypatch.setattr(sys, "argv", ["convert_head", *told])
        assert main() == 2 and re.search(f"^refused: .*{why}", capsys.readouterr().err)
        assert not list(tmp_path.rglob("*.safetensors*"))
    monkeypatch.setattr(sys, "argv", ["convert_head", *told, "b"])
    assert main() == 0 and "learned prompts of a, b" in capsys.readouterr().out
    assert (tmp_path / "new/folder/head.safetensors").is_file()
    monkeypatch.setattr(sys, "argv", ["convert_head", told[0], str(tmp_path / "new/folder"), "--names", "a", "b"])
    assert main() == 2 and "could not write" in capsys.readouterr().err


F32 = np.float32
BAD: dict[str, tuple[dict[str, np.ndarray], dict[str, str], str]] = {
    "other names": ({"w": np.ones((1, 4), F32)}, {}, r"linear_head expects \['weight', 'bias'\]"),
    "a vector": ({"weight": np.ones(4, F32), "bias": np.ones(1, F32)}, {}, r"weight \(4,\)"),
    "another bias": ({"weight": np.ones((1, 4), F32), "bias": np.ones(2, F32)}, {}, r"bias \(2,\)"),
    "integers": ({"weight": np.ones((1, 4), np.int32), "bias": np.ones(1, F32)}, {}, "as I32"),
    "infinity": ({"weight": np.full((1, 4), np.inf, F32), "bias": np.ones(1, F32)}, {}, "NaN or infinity"),
    "an activation": (
        {"weight": np.ones((1, 4), F32), "bias": np.ones(1, F32)},
        {"head": '{"activation": "tanh"}'},
        "'tanh'",
    ),
    "a lone softmax": (
        {"weight": np.ones((1, 4), F32), "bias": np.ones(1, F32)},
        {"head": '{"activation": "softmax"}'},
        "sigmoid",
    ),
    "no JSON": ({"weight": np.ones((1, 4), F32), "bias": np.ones(1, F32)}, {"head": "{"}, "no JSON"),
    "half a scale": (
        {"weight": np.ones((1, 4), F32), "bias": np.ones(1, F32), "mean": np.ones(4, F32)},
        {},
        "both or neither",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_is_no_head_is_refused(case: str, tmp_path: Path) -> None:
    tensors, facts, words = BAD[case]
    save_file(tensors, tmp_path / "head.safetensors", facts)
    with pytest.raises(RecipeError, match=words):
        LinearHead(column="score", weights=str(tmp_path / "head.safetensors")).check()


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="is not there"):
        LinearHead(column="score", weights=str(tmp_path / "none.safetensors")).check()
    (tmp_path / "head.safetensors").write_bytes(b"PK\x03\x04 not a head")
    with pytest.raises(RecipeError, match="no safetensors"):
        LinearHead(column="score", weights=str(tmp_path / "head.safetensors")).check()
    save_file({f"layers.{n}.{p}": np.ones((2, 2)[: 2 - (p == "bias")]) for n in (0, 1) for p in ("weight", "bias")},
              tmp_path / "mlp.safetensors")  # fmt: skip
    with pytest.raises(RecipeError, match="told as nowhere"):
        MlpHead(column="score", weights=str(tmp_path / "mlp.safetensors")).check()
    MlpHead(column="score", weights=str(tmp_path / "mlp.safetensors"), hidden="relu", output=0).check()


@pytest.mark.parametrize("name", ["clip_score", "Score", "a-b", "", "image"])
def test_a_column_has_a_free_and_plain_name(name: str) -> None:
    with pytest.raises(ValidationError, match=r"choose another name|lower-case"):
        LinearHead(column=name, weights="w.safetensors")


def test_another_width_is_refused_where_it_is_met(tmp_path: Path) -> None:
    write_head(Head(((np.ones((1, 8)), np.ones(1)),), ()), tmp_path / "head.safetensors")
    scorer = LinearHead(column="score", weights=str(tmp_path / "head.safetensors")).open()
    with pytest.raises(RecipeError, match="found embeddings of 6 numbers, expected 8"):
        scorer(batch(list(embeddings(2, 6))))
    sums = scorer(batch([None, [0.0] * 8]))
    assert sums[0].to_pylist() == [None, 1.0] and sums[1].to_pylist() == ["missing_embedding", None]


def test_a_number_beyond_float32_is_a_reason(tmp_path: Path) -> None:
    save_file({"weight": np.full((1, 4), 1e300), "bias": np.ones(1)}, tmp_path / "head.safetensors")
    found = LinearHead(column="score", weights=str(tmp_path / "head.safetensors")).open()(batch([[0.5] * 4]))
    assert found[0].to_pylist() == [None] and found[1].to_pylist() == ["no_score"]


def test_the_identity_is_the_content(tmp_path: Path) -> None:
    stages = []
    for name, bias in (("a", 1.0), ("b/c", 1.0), ("d", 2.0)):
        (tmp_path / name).mkdir(parents=True)
        write_head(Head(((np.ones((1, 8)), np.array([bias])),), ()), tmp_path / name / "head.safetensors")
        stages.append(LinearHead(column="score", weights=str(tmp_path / name / "head.safetensors")))
    assert stages[0].identity() == stages[1].identity() != stages[2].identity()
    assert read_head(tmp_path / "d/head.safetensors", linear=True).layers[0][1].tolist() == [2.0]


def test_a_recipe_holds_several_heads(make_pool: Callable[..., Path], ray_cluster: object, model_folder: Path) -> None:
    """Two heads of one kind, beside all else that hangs on CLIP: told apart in addresses, reasons, rules and report."""
    from pipeline.cluster import Cluster
    from pipeline.explain import story
    from pipeline.present import present
    from pipeline.resolve import resolve
    from pipeline.run import run

    width = json.loads((model_folder / "open_clip_config.json").read_text())["model_cfg"]["embed_dim"]
    noise = np.random.Generator(np.random.Philox(2))
    recipe = make_pool(shards=1, rows=6)
    for name in ("first", "second"):
        write_head(Head(((noise.normal(size=(1, width)), np.zeros(1)),), ()), recipe.parent / f"{name}.safetensors")
    steps = [
        f'{{kind: clip, model: "{model_folder}", device: cpu}}',
        "{kind: linear_head, column: first_score, weights: ./first.safetensors}",
        "{kind: linear_head, column: second_score, weights: ./second.safetensors, of: text, optional: true}",
        "{kind: concepts, concepts: [dog, cat]}",
        "{kind: tmars}",
    ]
    text = recipe.read_text().replace("score:\n", "score:\n" + "".join(f"  - {step}\n" for step in steps))
    recipe.write_text(text + "select: [{kind: top_fraction, column: first_score, fraction: 0.5}]\n")
    resolved = resolve(recipe)
    names = [stage.name for stage in resolved.stages][:3]
    assert names == ["clip", "linear_head_first_score", "linear_head_second_score"]
    assert set(names) <= set(resolved.addresses)
    with Cluster(workers=2) as cluster:
        outcome = run(resolved, cluster, until="select")
    present(outcome)
    page = (outcome.folder / "report.html").read_text()
    assert all(column in page for column in ("first_score", "second_score", "concept_dog", "clip_score_masked"))
    assert {line["kind"]: line["computed"] for line in outcome.record["stages"]}["linear_head_second_score"] == 3
    rows = outcome.chosen.table.scores("pool", ["first_score", "second_score"]).collect()
    assert rows.null_count().row(0)[2:] == (0, 0)
    assert rows.select(pl.corr("first_score", "second_score")).item() < 0.999
    told = story(outcome.folder, outcome.ledger["uid"][0])
    assert "linear_head_second_score" in json.dumps(told)
    other = text.replace("second_score", "first_score")
    for wrong, words in (
        (other, "'linear_head_first_score' stands twice"),
        (text.replace("./first.safetensors", "./narrow.safetensors"), "expects 3 numbers in 'image_embedding'"),
    ):
        write_head(Head(((np.ones((1, 3)), np.zeros(1)),), ()), recipe.parent / "narrow.safetensors")
        recipe.write_text(wrong)
        with pytest.raises(RecipeError, match=words):
            resolve(recipe)
