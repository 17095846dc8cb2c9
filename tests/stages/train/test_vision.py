import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import CuveeError
from stages.pixels import decode, flat_rgb
from stages.train.class_tokens import class_tokens
from stages.train.preprocessing import preprocessing_identity
from stages.train.settings import TrainSettings
from stages.train.spot_check import SpotCheck, cosines
from stages.train.vision_features import VisualTokens, add_missing
from stages.train.vision_tower import VisionTower, load_tower, pooled_grid, spatial_features

Picture = Callable[..., bytes]

ENCODER = Path(__file__).resolve().parents[3] / "../shared/models/tiny-dual-encoder"


def test_patch_tokens_average_to_what_the_tower_pools(vision_folder: Path, picture: Picture) -> None:
    import open_clip
    import torch

    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{vision_folder}")
    visual = model.visual.eval()
    visual.pool_type = "avg"
    pixels = torch.stack([preprocess(flat_rgb(decode(picture(n)))) for n in range(3)])
    with torch.no_grad():
        grid = spatial_features(visual, pixels)
        assert grid.shape == (3, 24, 8, 8)
        assert torch.allclose(grid.mean(dim=(2, 3)) @ visual.proj, visual(pixels), atol=1e-5)


@pytest.mark.parametrize("name", ["mobilenetv2_100", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_timm_trunks_give_what_their_average_pool_sees(name: str) -> None:
    import open_clip
    import torch

    torch.manual_seed(0)
    visual = open_clip.timm_model.TimmModel(name, 16, image_size=224, pool="avg", proj="linear").eval()
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        grid = spatial_features(visual, pixels)
        pooled = grid.mean(dim=(2, 3))
        assert pooled.shape == (1, visual.trunk.num_features)
        if name != "vit_tiny_patch16_224":  # its norm comes after the pool
            assert torch.allclose(visual.head(pooled), visual(pixels), atol=1e-4)


def test_a_trained_tower_from_the_shared_models(picture: Picture) -> None:
    import open_clip
    import torch

    if not ENCODER.is_dir():
        pytest.skip("the research model ../shared/models/tiny-dual-encoder is not here")
    tower = load_tower(str(ENCODER), None, 16)
    image = flat_rgb(decode(picture(1, 224)))
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{ENCODER}")
    tokens = tower.tokens([image])
    assert tokens.shape == (1, 16, 1280) and tokens.dtype == np.float16
    with torch.no_grad():
        pixels = preprocess(image)[None]
        grid = spatial_features(model.visual.eval(), pixels)
        assert torch.allclose(model.visual.head(grid.mean(dim=(2, 3))), model.encode_image(pixels), atol=1e-4)
        pooled = torch.nn.functional.adaptive_avg_pool2d(grid, (4, 4)).flatten(2).transpose(1, 2)
    assert np.allclose(tokens, pooled.numpy(), atol=0.02, rtol=0.01)


def test_resnet_towers_show_their_last_map() -> None:
    import torch
    from open_clip.modified_resnet import ModifiedResNet

    visual = ModifiedResNet([1, 1, 1, 1], output_dim=8, heads=2, image_size=64, width=8).eval()
    with torch.no_grad():
        assert spatial_features(visual, torch.randn(2, 3, 64, 64)).shape == (2, 256, 2, 2)
    with pytest.raises(CuveeError, match="Linear"):
        spatial_features(torch.nn.Linear(2, 2), torch.randn(2, 2))


@pytest.mark.parametrize(
    ("rows", "columns", "most", "grid"),
    [
        *[(8, 8, 16, (4, 4)), (7, 7, 16, (4, 4)), (3, 3, 16, (3, 3)), (14, 14, 1, (1, 1)), (14, 14, 32, (5, 6))],
        *[
            (2, 40, 16, (1, 16)),
            (16, 8, 32, (8, 4)),
            (1, 50, 16, (1, 16)),
            (24, 24, 144, (12, 12)),
            (50, 1, 16, (16, 1)),
        ],
    ],
)
def test_grids_keep_their_proportions(rows: int, columns: int, most: int, grid: tuple[int, int]) -> None:
    assert pooled_grid(rows, columns, most) == grid


@pytest.fixture
def images(picture: Picture) -> list[tuple[str, bytes]]:
    return [(f"h{number:03d}", picture(number)) for number in range(150)]


def test_tokens_are_the_same_for_any_number_of_workers(
    vision_folder: Path, images: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    tower = load_tower(str(vision_folder), None, 16)
    for parts in (1, 2):
        for part in range(parts):
            add_missing(tmp_path / str(parts), images, lambda: tower, part, parts)
    one, two = (VisualTokens.open(tmp_path / str(parts)) for parts in (1, 2))
    names = [name for name, _ in images]
    assert np.array_equal(one.gather(names), two.gather(names))
    assert one.gather(names[:2]).shape == (2, 16, 24)


def test_only_what_is_missing_is_computed(vision_folder: Path, images: list[tuple[str, bytes]], tmp_path: Path) -> None:
    loads = []

    def tower() -> VisionTower:
        loads.append(1)
        return load_tower(str(vision_folder), None, 16)

    add_missing(tmp_path, [*images[:70], ("bad", b"no image")], tower)
    found = VisualTokens.open(tmp_path)
    assert "bad" in found and found.undecodable == {"bad": "not_an_image"}
    before = found.gather(["h003"])
    assert len(loads) == 1
    add_missing(tmp_path, [*images[:70], ("bad", b"no image")], tower)
    assert len(loads) == 2, "what is cached is checked"
    add_missing(tmp_path, images[:80], tower)
    assert len(loads) == 3 and len(VisualTokens.open(tmp_path).places) == 80
    assert np.array_equal(VisualTokens.open(tmp_path).gather(["h003"]), before)
    for leftover in tmp_path.glob("*.json"):
        (tmp_path / f".writing-{leftover.stem}-1").write_text("{")
    assert len(VisualTokens.open(tmp_path).places) == 80


def test_what_is_cached_is_checked_against_the_tower(
    vision_folder: Path, images: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    tower = load_tower(str(vision_folder), None, 16)
    add_missing(tmp_path, images[:70], lambda: tower)
    for file in tmp_path.glob("*.npy"):
        tokens = np.load(file)
        np.save(file, tokens + np.float16(0.002))
        add_missing(tmp_path, images[:70], lambda: tower)
        tokens[0] = tokens[0, ::-1]
        np.save(file, tokens)
    with pytest.raises(
        CuveeError, match=r"image h000 .*cosine of -?0\.\d+, expected at least 0\.999.*Remove that folder"
    ):
        add_missing(tmp_path, images[:70], lambda: tower)
    fewer = load_tower(str(vision_folder), None, 9)
    with pytest.raises(CuveeError, match=r"shape \(9, 24\), cached \(16, 24\)"):
        add_missing(tmp_path, images[:70], lambda: fewer)


def test_one_image_in_ten_thousand_is_checked_and_the_first(tmp_path: Path) -> None:
    names = [f"h{number}" for number in range(60_000)]
    check = SpotCheck(VisualTokens(places=dict.fromkeys(names, (0, 0))), tmp_path)
    for name in ["new", *names]:
        check.see(name, b"")
    taken = [name for name, _ in check.taken]
    assert taken[0] == "h0" and 2 <= len(taken) <= 16
    assert cosines(np.array([[3.0, 4.0], [0, 0], [0, 0]]), np.array([[4.0, 3.0], [0, 0], [1, 0]])).tolist() == [
        0.96, 1.0, 0.0,
    ]  # fmt: skip


def test_class_tokens_are_the_last_layers(vision_folder: Path, picture: Picture) -> None:
    import torch

    tower = load_tower(str(vision_folder), None, 16, kind="class_tokens")
    pixels = torch.stack([tower.preprocess(flat_rgb(decode(picture(n)))) for n in range(3)])
    with torch.no_grad():
        found = class_tokens(tower.visual, pixels)
        assert found.shape == (3, 2, 24), "this tower has two layers"
        pooled = tower.visual.ln_post(found[:, -1]) @ tower.visual.proj
        assert torch.allclose(pooled, tower.visual(pixels), atol=1e-5)
    tokens, grid = tower.features([flat_rgb(decode(picture(n))) for n in range(3)])
    assert grid == (1, 2) and np.allclose(tokens, found.numpy(), atol=1e-2)


def test_towers_without_class_tokens_give_means() -> None:
    import open_clip
    import torch
    from open_clip.modified_resnet import ModifiedResNet

    torch.manual_seed(0)
    flat = ModifiedResNet([1, 1, 1, 1], output_dim=8, heads=2, image_size=64, width=8).eval()
    with torch.no_grad():
        assert class_tokens(flat, torch.randn(2, 3, 64, 64)).shape == (2, 1, 256)
        for name, layers, width in (("mobilenetv2_100", 1, 1280), ("vit_tiny_patch16_224", 6, 192)):
            visual = open_clip.timm_model.TimmModel(name, 16, image_size=224, pool="avg", proj="linear").eval()
            pixels = torch.randn(1, 3, 224, 224)
            found = class_tokens(visual, pixels)
            assert found.shape == (1, layers, width)
            if layers > 1:
                last = visual.trunk.forward_features(pixels)[:, 0]
                assert torch.allclose(visual.trunk.norm(found[:, -1]), last, atol=1e-4)


def test_an_earlier_layer_is_read_before_the_final_norm(vision_folder: Path) -> None:
    import torch

    visual = load_tower(str(vision_folder), None, 16).visual
    pixels = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        before = spatial_features(visual, pixels, -2)
        states = torch.cat([class_tokens(visual, pixels)[:, -2:-1], before.flatten(2).transpose(1, 2)], dim=1)
        last = visual.ln_post(visual.transformer.resblocks[-1](states))[:, 1:]
        assert before.shape == (1, 24, 8, 8)
        assert torch.allclose(last, spatial_features(visual, pixels).flatten(2).transpose(1, 2), atol=1e-4)
    with pytest.raises(CuveeError, match="no layer -3 of patches, found 2"):
        spatial_features(visual, pixels, -3)
    from open_clip.modified_resnet import ModifiedResNet

    with pytest.raises(CuveeError, match="ModifiedResNet has no layer -2"):
        spatial_features(ModifiedResNet([1, 1, 1, 1], output_dim=8, heads=2, image_size=64, width=8), pixels, -2)


def test_the_address_covers_what_tokens_depend_on(settings: Callable[..., TrainSettings], tmp_path: Path) -> None:
    usual = settings().feature_key.folder(tmp_path)
    assert usual == settings(learning_rate=1e-3, connector="linear").feature_key.folder(tmp_path)
    others = [
        settings(visual_tokens=9), settings(vision_layer=-2), settings(connector="ep_alm"),
        settings(vision_model="ViT-B-32", vision_pretrained="openai"),
    ]  # fmt: skip
    assert len({usual, *(made.feature_key.folder(tmp_path) for made in others)}) == 5
    few, many = (settings(connector="ep_alm", visual_tokens=count).feature_key for count in (9, 16))
    assert few == many, "class tokens are as many as they are"


def test_preprocessing_is_told_from_the_configuration(vision_folder: Path, tmp_path: Path) -> None:
    facts = json.loads((vision_folder / "open_clip_config.json").read_text())
    usual = preprocessing_identity(str(vision_folder), None)
    (tmp_path / "open_clip_config.json").write_text(json.dumps(facts))
    assert preprocessing_identity(f"local-dir:{tmp_path}", None) == usual
    facts["preprocess_cfg"]["mean"] = [0.4] * 3
    (tmp_path / "open_clip_config.json").write_text(json.dumps(facts))
    assert preprocessing_identity(str(tmp_path), None) != usual
    tags = {preprocessing_identity("ViT-B-32", tag) for tag in ("openai", "laion2b_s34b_b79k")}
    assert len(tags | {preprocessing_identity("ViT-L-14-336", "openai")}) >= 2


def test_a_row_does_not_depend_on_its_batch(vision_folder: Path, picture: Picture) -> None:
    tower = load_tower(str(vision_folder), None, 16)
    pictures = [flat_rgb(decode(picture(number))) for number in range(64)]
    together = tower.tokens(pictures)
    assert all(np.array_equal(tower.tokens([pictures[n]])[0], together[n]) for n in (0, 1, 31, 63))


def test_a_strip_keeps_a_pixel_where_the_longer_side_is_scaled(vision_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(vision_folder, tmp_path / "longest")
    file = tmp_path / "longest/open_clip_config.json"
    facts = json.loads(file.read_text())
    facts["preprocess_cfg"]["resize_mode"] = "longest"
    file.write_text(json.dumps(facts))
    strips = [Image.new("RGB", size, "red") for size in ((1, 600), (600, 1), (3, 2))]
    assert load_tower(str(tmp_path / "longest"), None, 16).tokens(strips).shape[:2] == (3, 16)


def test_a_tower_that_does_not_load_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CuveeError, match="does not load"):
        load_tower("no-such-model", "no-such-tag", 16)
    (tmp_path / "open_clip_config.json").write_text("{}")
    with pytest.raises(CuveeError, match="does not load"):
        load_tower(str(tmp_path), None, 16)
