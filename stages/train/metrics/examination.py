"""The metrics that a run computes on demand: `train.metrics`."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.noise import uniform_noise
from stages.train.language_model import one_thread
from stages.train.metrics.align_report import NEIGHBOURS, align_report
from stages.train.metrics.concepts import concepts_of
from stages.train.metrics.evaluation import Evaluation
from stages.train.metrics.expert_report import expert_report
from stages.train.metrics.group_losses import group_losses, spurious_strength
from stages.train.metrics.ima import ima
from stages.train.metrics.layer_states import LayerStates, caption_states, chosen_pairs, layer_states, mean_outputs
from stages.train.metrics.mir import layer_distance, mir_of_distances
from stages.train.metrics.nll import label_counts, sample_losses
from stages.train.metrics.on_demand import OnDemand
from stages.train.metrics.style_leakage import FOLDS, style_leakage
from stages.train.samples import Corpus

if TYPE_CHECKING:
    from stages.train.bridge import Bridge
    from stages.train.loop import Frozen

PAIRS, IMAGES = 100, 1000
"""Held-out pairs for MIR and IMA, as published; images for neighbours and for style leakage."""


@dataclass(frozen=True)
class Examination:
    """One trained connector, what it was trained on, and what it is asked."""

    bridge: "Bridge"
    frozen: "Frozen"
    asked: Evaluation
    trained: Corpus
    sources: Sequence[str]
    """(n,) source of each sample trained on; empty where nobody knows."""
    batch: int

    def found(self, wanted: Sequence[OnDemand]) -> dict[str, Any]:
        """`metrics` by name, `layers` by metric, `groups`, `experts`; `left_out`: what has no value here, and why."""
        import torch

        found: dict[str, Any] = {"metrics": {}, "layers": {}, "left_out": {}}
        with one_thread(), torch.inference_mode():
            if {"mir", "ima"} & set(wanted):
                self._layers(wanted, found)
            if "mutual_knn" in wanted:
                self._alignment(found)
            if "groups" in wanted:
                self._groups(found)
            if "style_leakage" in wanted:
                self._style(found)
            if "experts" in wanted:
                self._experts(found)
        return {name: value for name, value in found.items() if value}

    def _layers(self, wanted: Sequence[OnDemand], found: dict[str, Any]) -> None:
        """MIR and IMA of at most 100 pairs."""
        asked = self.asked
        ids = chosen_pairs(asked.corpus, PAIRS, asked.seed)
        if len(ids) < 2:
            found["left_out"] |= {name: "fewer than 2 held-out images" for name in ("mir", "ima") if name in wanted}
            return
        distances, means = [], []
        for states in self._states(ids, asked.corpus.images):
            distances.append({"layer": states.layer, "distance": layer_distance(states.visual, states.text)})
            means.append(states.means())
        if "mir" in wanted:
            found["metrics"]["mir"] = mir_of_distances([float(row["distance"]) for row in distances])
            found["layers"]["mir"] = distances
        if "ima" in wanted:
            others = self._states(ids, asked.others)
            both = [(own, other.layer, other.means()) for own, other in zip(means, others, strict=True)]
            found["layers"]["ima"] = [{"layer": layer, **ima(own, other).facts()} for own, layer, other in both]
            found["metrics"]["ima_gap"] = float(np.mean([row["gap"] for row in found["layers"]["ima"]]))

    def _states(self, ids: Sequence[int], images: Sequence[str]) -> Iterator[LayerStates]:
        shown = [images[i] for i in ids]
        return layer_states(self.bridge, self.frozen, self.asked.corpus, ids, shown, self.batch)

    def _alignment(self, found: dict[str, Any]) -> None:
        """The report on layers, and its best score."""
        ids = chosen_pairs(self.asked.corpus, IMAGES, self.asked.seed)
        if len(ids) <= NEIGHBOURS:
            found["left_out"]["mutual_knn"] = f"fewer than {NEIGHBOURS + 1} held-out images"
            return
        images = mean_outputs(self.bridge, self.frozen, self.asked.corpus, ids, self.batch)
        captions = caption_states(self.bridge, self.frozen, self.asked.corpus, ids, self.batch)
        report = align_report(images, captions, self.asked.seed)
        best = max(report["layers"], key=lambda layer: float(layer["mutual_knn"]))
        found["metrics"] |= {"mutual_knn": best["mutual_knn"], "mutual_knn_chance": best["mutual_knn_chance"]}
        found["layers"]["mutual_knn"] = report

    def _groups(self, found: dict[str, Any]) -> None:
        """Held-out losses by (source, concept), and how far sources decide the concepts that were trained on."""
        asked, corpus = self.asked, self.asked.corpus
        losses = sample_losses(self.bridge, self.frozen, corpus, corpus.images, self.batch)
        concepts = concepts_of(self.frozen.visual, corpus.images, corpus.images, asked.seed)
        sources = asked.sources or [""] * len(corpus)
        groups = group_losses(losses, label_counts(corpus), sources, concepts.tolist())
        found["metrics"]["group_balanced_nll"] = groups["group_balanced"]
        if groups["worst_group"] is not None:
            found["metrics"]["worst_group_nll"] = groups["worst_group"]
        found["groups"] = {"worst": groups["worst"], "groups": groups["groups"]}
        if len(set(self.sources)) < 2:
            found["left_out"]["spurious_strength"] = _ONE_SOURCE
            return
        shown = concepts_of(self.frozen.visual, corpus.images, self.trained.images, asked.seed)
        found["metrics"] |= spurious_strength(self.sources, shown.tolist(), asked.seed)

    def _experts(self, found: dict[str, Any]) -> None:
        """Whether experts specialise in the sources of held-out images."""
        asked = self.asked
        told = expert_report(self.bridge, self.frozen, asked.corpus, asked.sources, self.batch, asked.seed)
        if isinstance(told, str):
            found["left_out"]["experts"] = told
            return
        found["experts"] = told
        of_note = {f"expert_{name}": told[name] for name in ("nmi", "utilisation", "swap_cost")}
        found["metrics"] |= {name: value for name, value in of_note.items() if value is not None}

    def _style(self, found: dict[str, Any]) -> None:
        """Style leakage on at most 1,000 of the samples that were trained on."""
        noise = uniform_noise(self.trained.keys, self.asked.seed, "style leakage samples")
        ids = sorted(np.argsort(noise, kind="stable")[:IMAGES].tolist())
        sources, images = [self.sources[i] for i in ids if self.sources], [self.trained.images[i] for i in ids]
        if len(set(sources)) < 2:
            found["left_out"]["style_leakage"] = _ONE_SOURCE
        elif len(set(images)) < FOLDS:
            found["left_out"]["style_leakage"] = f"fewer than {FOLDS} images were trained on"
        else:
            outputs = mean_outputs(self.bridge, self.frozen, self.trained, ids, self.batch)
            told = style_leakage(outputs, sources, images, self.asked.seed)
            found["metrics"]["style_leakage"] = told.pop("leakage")
            found["metrics"] |= {f"style_leakage_{name}": value for name, value in told.items()}


_ONE_SOURCE = "the samples trained on come from one source, or nobody says from which"
