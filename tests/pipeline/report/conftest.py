import io
import json
import os
import shutil
import subprocess
import tempfile
from base64 import b64decode
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.report.trials_view import LawView, TrialsView
from pipeline.report.view import (
    ArmView,
    CaptionView,
    Card,
    Check,
    ComparisonView,
    Curve,
    Difference,
    DuplicateGroup,
    GalleryGroup,
    Metric,
    MixtureView,
    NamesView,
    RankingView,
    ReportView,
    ScoreView,
    SelectorView,
    SourceShare,
    SourceWorth,
    StageTiming,
    StatusCount,
    Step,
    Threshold,
    TrainingView,
)

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]


def binary() -> str | None:
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """A headless Chromium spoken to through its debugging pipe: one message is JSON and a zero byte."""

    def __init__(self, path: str, profile: Path) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        launch = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", launch, "bash", path, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer, self._number, self.events = b"", 0, list[dict[str, Any]]()
        target = self.ask("Target.createTarget", {"url": "about:blank"}, session=None)["targetId"]
        self.session = self.ask("Target.attachToTarget", {"targetId": target, "flatten": True}, session=None)[
            "sessionId"
        ]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.ask(f"{domain}.enable")

    def ask(self, method: str, params: dict[str, Any] | None = None, session: str | None = "") -> dict[str, Any]:
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params or {}}
        if session is not None:
            message["sessionId"] = self.session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 20)
            assert chunk, "the browser went away"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def open(self, page: Path, width: int = 1280, dark: bool = False) -> None:
        """Load a page; what it logs and asks for is in `events` afterwards."""
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.ask("Emulation.setEmulatedMedia", {"features": scheme})
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.ask("Emulation.setDeviceMetricsOverride", size)
        self.ask("Page.navigate", {"url": page.resolve().as_uri()})
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read())

    def evaluate(self, expression: str) -> Any:
        return self.ask("Runtime.evaluate", {"expression": expression, "returnByValue": True})["result"].get("value")

    def requests(self) -> list[str]:
        """Every address asked for beside the page itself and data URIs."""
        sent = [e["params"]["request"]["url"] for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith("data:")][1:]

    def complaints(self) -> list[dict[str, Any]]:
        """Console messages, exceptions, and what the browser logs by itself, such as CSP violations."""
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return [event["params"] for event in self.events if event.get("method") in told]

    def screenshot(self, png: Path, whole: bool = True) -> bytes:
        shot = b64decode(self.ask("Page.captureScreenshot", {"captureBeyondViewport": whole, "format": "png"})["data"])
        png.write_bytes(shot)
        return shot

    def close(self) -> None:
        os.close(self._out)
        self._process.wait(timeout=30)
        os.close(self._in)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = binary()
    if path is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on PATH: the page is not opened in a browser")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        running = Browser(path, Path(profile))
        yield running
        running.close()


def picture(number: int, size: tuple[int, int] = (160, 120), kind: str = "JPEG") -> bytes:
    """A gradient of its own colour, so that every sample looks different."""
    down, across = np.mgrid[0 : size[1], 0 : size[0]]
    channels = [(across * (number % 5 + 1)) % 256, (down * 2 + number * 37) % 256, (across + down + number) % 256]
    file = io.BytesIO()
    Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(file, kind)
    return file.getvalue()


def card(number: int, **changed: Any) -> Card:
    made = Card(
        key=f"{number:06d}",
        uid=f"{number:032x}",
        source="photos",
        image=picture(number),
        caption=f"gradient number {number}",
        scores={"clip_score": 0.2 + number / 1000},
    )
    return replace(made, **changed)


def mixture() -> MixtureView:
    shares = (
        SourceShare("photos", 0.6, 0.7, 0.9, 0.8, 0.8, (0.82, 0.95)),
        SourceShare("catalog", 0.4, 0.3, 0.1, 0.2, 0.2, (0.05, 0.18)),
    )
    references = {"uniform": 0.52, "natural": 0.61, "ideal": 0.4}
    worth = (
        SourceWorth("photos", -0.02, 0.45, 0.3, 0.8, {"catalog": -0.04}),
        SourceWorth("catalog", 0.08, 0.9, 0.04, 0.3, {"photos": -0.49}),
    )
    return MixtureView(shares, 0.41, references, "optimal_transport", binding=("max_repeats: photos",), worth=worth)


def trials(sources: tuple[str, ...] = ("art", "catalog", "photos", "web"), runs: int = 60) -> TrialsView:
    """Runs whose objective falls with the last source and rises with the first."""
    rng = np.random.default_rng(4)
    shares = rng.dirichlet(np.ones(len(sources)), runs)
    slopes = np.linspace(0.8, -0.6, len(sources))
    objective = 2.4 + np.exp(shares @ slopes) + rng.normal(0, 0.02, runs)
    predicted = 2.4 + np.exp(shares @ slopes)
    best = tuple(np.eye(len(sources))[-1] * 0.6 + 0.4 / len(sources))
    even = (1 / len(sources),) * len(sources)
    facts = {"rank correlation": 0.97, "mean error": 0.018, "runs": runs, "other laws": "linear 0.91, trees 0.88"}
    return TrialsView(
        sources,
        shares,
        objective,
        {"exported": best, "natural": even},
        (
            LawView("nll.target", "log_linear", objective, predicted, 1.0, facts),
            LawView("nll.photos", "gaussian_process", objective - 0.5, predicted - 0.5, 0.0, facts),
        ),
        {name: float(slope) for name, slope in zip(sources, slopes - slopes @ np.array(best), strict=True)},
        "nll.target",
        {"certified gap": 1.2e-8, "bootstrap": 100},
    )


def training() -> TrainingView:
    steps = np.arange(1, 101)
    arms = tuple(
        ArmView(
            name,
            tuple(Curve(seed, steps, end + 4 * np.exp(-steps / 20) + 0.01 * seed) for seed in range(3)),
            {"nll": (end, end + 0.01, end + 0.02), "edit_distance": (0.5, 0.6, 0.55)},
        )
        for name, end in (("raw", 2.6), ("curated", 2.3))
    )
    metrics = (Metric("nll", "NLL per token"), Metric("edit_distance", "token edit distance"))
    differences = (
        Difference("nll", "curated", "raw", -0.3, -0.35, -0.25, (-0.3, -0.31, -0.29)),
        Difference("edit_distance", "curated", "raw", 0.0, -0.02, 0.02, (0.01, -0.01, 0.0)),
    )
    said = (
        CaptionView(picture(11), "two red stars", {"raw": ("advertisement", 1.0), "curated": ("two red stars", 0.0)}),
        CaptionView(None, "a blue ring", {"raw": ("", 1.0), "curated": ("a blue heart", 1 / 3)}),
    )
    return TrainingView(arms, metrics, differences, {"steps": 100, "batch": 32}, said)


def comparison() -> ComparisonView:
    """Three selectors: one better than random draws, one worse, and random itself."""
    placed = {"likeness": (0.31, 0.9, "below"), "longest": (0.62, 0.2, "above"), "random": (0.5, 0.6, "within")}
    selectors = tuple(
        SelectorView(
            name,
            20,
            {"kl": kl, "mean_tokens": 12 / kl},
            {"photos": photos, "catalog": 1 - photos},
            {"kl": side, "mean_tokens": side},
            {"nll": (2.4 + kl, 2.41 + kl, 2.39 + kl)},
            0.25,
            f"settings of {name}",
        )
        for name, (kl, photos, side) in placed.items()
    )
    names = list(placed)
    return ComparisonView(
        budget="20 samples",
        survivors=98,
        everything=SelectorView("all", 98, {"kl": 0.48, "mean_tokens": 25.0}, {"photos": 0.6, "catalog": 0.4}),
        selectors=selectors,
        measures=(Metric("kl", "KL to the target", "lower", "in nats"), Metric("mean_tokens", "tokens", "")),
        intervals={"kl": (0.46, 0.55), "mean_tokens": (22.0, 27.0)},
        overlap={one: {other: 1.0 if one == other else 0.25 for other in names} for one in names},
        chance_overlap=0.11,
        measured_on="Measured on 12 samples of the target that no selector saw.",
        trained=(Metric("nll", "NLL per token"),),
        differences=(Difference("nll", "likeness", "random", -0.1, -0.15, -0.05, (-0.1, -0.12, -0.08)),),
    )


def full_view() -> ReportView:
    """Every section filled; 100 samples of two sources."""
    values = np.linspace(-0.1, 0.4, 60)
    fates = {"kept": values[values >= 0.2], "not kept": values[values < 0.2]}
    return ReportView(
        title="tested-recipe",
        run="0007",
        counted=100,
        status_counts=(
            StatusCount("photos", "kept", None, 40),
            StatusCount("photos", "dropped", "below_clip_score", 20),
            StatusCount("catalog", "kept", None, 10),
            StatusCount("catalog", "dropped", "near_duplicate", 28),
            StatusCount("catalog", "quarantined", "truncated_image", 2),
        ),
        funnel=(
            Step("ingest and scores", 100, 98, {"truncated_image": 2}, name="quarantine", status="quarantined"),
            Step("near_duplicate_images", 98, 70, {"near_duplicate": 28}, 0.5, evidence={"groups": 9, "distance": 4}),
            Step("top_fraction", 70, 50, {"below_clip_score": 20}, 0.02, evidence={"thresholds": {"photos": 0.21}}),
        ),
        scores=(
            ScoreView("clip_score", {"photos": values, "catalog": values - 0.1}, "cosine", "", (Threshold(0.2),)),
            ScoreView("min_side_px", {"photos": np.full(60, 224)}, "shorter side [px]", "px"),
        ),
        names=(
            NamesView(
                "language",
                {"photos": {"en": 50, "de": 9, None: 1}, "catalog": {"fr": 40}},
                {"photos": 60, "catalog": 40},
                "most probable language",
            ),
        ),
        rankings=(
            RankingView("3. dsir", ScoreView("score", fates, "ranked by", "", (Threshold(0.2),), ("not kept",))),
            RankingView("3. dsir", ScoreView("importance", fates, "without noise", muted=("not kept",))),
        ),
        gallery=(
            GalleryGroup("kept", 50, tuple(card(n) for n in range(4)), "survived", "kept"),
            GalleryGroup("below_clip_score", 20, tuple(card(n) for n in range(4, 7)), "decided by top_fraction"),
            GalleryGroup("truncated_image", 2, (card(8, image=picture(8)[:900]), card(9, image=b"<html>"))),
        ),
        duplicates=(DuplicateGroup("near_duplicate_images", card(10), (card(11, note="distance 2"),), 7),),
        mixture=mixture(),
        trials=trials(),
        exported=200,
        training=training(),
        comparison=comparison(),
        stages=(StageTiming("clip", 2, 1, 100, 4.0, 25.0, 90_000), StageTiming("image_header", 0, 3, 0, 0.0)),
        checks=(Check("exact duplicates found", "28 of 28", "all", True), Check("planted noise", "0.4", "", None)),
        notes=("source `drawings` has no surviving rows: its weight is 0",),
        facts={"seed": 0, "recipe fingerprint": "0123abcd"},
        recipe_yaml="name: tested-recipe\nseed: 0\n",
    )


@pytest.fixture
def view() -> ReportView:
    return full_view()


@pytest.fixture
def make_card() -> Callable[..., Card]:
    return card


@pytest.fixture
def make_picture() -> Callable[..., bytes]:
    return picture
