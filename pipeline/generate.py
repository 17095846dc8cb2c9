"""Scores of stages that ask a language model which runs on the cluster's GPUs, by Ray Data LLM and vLLM.

Everything else of the shards is scored first, so that every slice is known. Then, per such stage, one dataset: workers
turn slices into requests, vLLM's replicas answer them in any order, and as soon as all replies of a slice are there a
worker runs the stage on it with the replies in hand. Only requests and replies travel; sidecars are those of any stage.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from pipeline.cluster import Cluster
from pipeline.plan import Work, slices
from pipeline.resolve import Resolved
from pipeline.tasks import Task, run_tasks
from pipeline.worker import SliceWorker, Toolbox, assemble, described
from schemas.errors import CuveeError, ShardError
from stages.generation import Generation, answering, asking
from stages.stage import Stage

A_FEW = 10
"""Requests that may fail whatever their share."""
Report = dict[str, Any]
Score = Callable[[list[Work]], Iterator[Report]]
"""Scores everything else of work items."""


def with_generation(
    cluster: Cluster, resolved: Resolved, box: Toolbox, work: list[Work], score: Score
) -> Iterator[Report]:
    """The reports on all work; those on shards that wait for a model come when it has answered.

    Raises:
        CuveeError: too few GPUs, or a reply was lost.
    """
    stages = [stage for stage in resolved.stages if stage.generation() is not None]
    names = {stage.name for stage in stages}
    waiting = {item.token for item in work if names & set(item.stages)}
    for stage in stages if waiting else ():
        _refuse_without_gpus(cluster, stage)
    rest = [replace(item, stages=tuple(name for name in item.stages if name not in names)) for item in work]
    held: list[Report] = []
    for report in score([item for item in rest if item.stages or item.digest is None]):
        if "bad" in report:
            waiting.discard(report["token"])
        if "error" in report or report["token"] not in waiting:
            yield report
        else:
            held.append(report)
    closing = {report["token"]: report for report in held if "digest" in report}
    for place, stage in enumerate(stages):
        later = {other.name for other in stages[place + 1 :]}
        asked = {item.token: item for item in work if item.token in waiting and stage.name in item.stages}
        pieces = [piece for item in work if item.token in asked for piece in _pieces(resolved, item, stage, closing)]
        for report in _scored(cluster, box, stage, pieces):
            if "bad" in report:
                waiting.discard(report["token"])
            # A shard is put together at its last report: what other models have to say of it comes first.
            wait = not {"bad", "error"} & set(report) and later & set(asked[report["token"]].stages)
            if wait:
                held.append(report)
            else:
                yield report
        for token in sorted(waiting & set(asked) & set(closing)):  # its other sidecars are complete, so is the index
            shard = (token, closing[token]["digest"], closing[token]["slices"])
            assemble(resolved.workspace, box.addresses[stage.name], stage.returns(), shard)
    yield from (report for report in held if report["token"] in waiting)


def _refuse_without_gpus(cluster: Cluster, stage: Stage) -> None:
    wanted = _generation(stage).gpus_per_replica
    found = int(cluster.ray.cluster_resources().get("GPU", 0))
    if found < wanted:
        raise CuveeError(
            f"stage {stage.name!r} needs {wanted} GPUs for vLLM and the cluster has {found}; join one with --address, "
            "start `vllm serve MODEL` elsewhere and use `backend: {kind: openai}`, or use `{kind: transformers}`"
        )


def _generation(stage: Stage) -> Generation:
    found = stage.generation()
    assert found is not None
    return found


def _pieces(resolved: Resolved, item: Work, stage: Stage, closing: dict[str, Report]) -> Iterator[Work]:
    """The slices of an item, with nothing but this stage to be done."""
    one = replace(item, stages=(stage.name,))
    if item.token not in closing:
        yield one
        return
    digest = closing[item.token]["digest"]
    for number, (first, rows) in enumerate(slices(resolved.workspace, item.index_address, digest)):
        yield replace(one, digest=digest, slice_number=number, first_row=first, rows=rows)


def _scored(cluster: Cluster, box: Toolbox, stage: Stage, pieces: list[Work]) -> Iterator[Report]:
    if not pieces:
        return
    names = [json.dumps(piece.to_json()) for piece in pieces]
    asked = cluster.ray.data.from_items([{"work": name} for name in names], override_num_blocks=len(names)).flat_map(
        Asking,
        fn_constructor_args=(box, stage.name),
        compute=cluster.ray.data.ActorPoolStrategy(min_size=1, max_size=_cores(cluster)),
        num_cpus=1,
    )
    answered = processor(_generation(stage))(asked)
    whole = _whole(names, answered.iter_rows(), _generation(stage).max_failed)
    for _, report in run_tasks(cluster, Hearing(box, stage.name), whole, _given_up):
        yield report


def _cores(cluster: Cluster) -> int:
    return max(1, int(cluster.ray.cluster_resources().get("CPU", 1)) - 1)


class Asking:
    """Turns a slice into the requests that a stage makes about it."""

    def __init__(self, box: Toolbox, name: str) -> None:
        self.worker = SliceWorker(box, [name])
        (self.stage,) = self.worker.stages
        self.scorer = self.stage.open()

    def __call__(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """One slice in, a row per request out; JSON, so that no table library looks into messages."""
        try:
            columns = self.worker.read(Work.from_json(json.loads(row["work"])))
        except ShardError:
            return []  # told when the slice is scored, which reads it again
        inputs = pa.table([columns[field.name] for field in self.stage.reads], pa.schema(self.stage.reads))
        with asking() as noted:
            for start in range(0, len(inputs), self.stage.batch_rows):
                for batch in inputs.slice(start, self.stage.batch_rows).combine_chunks().to_batches():
                    self.scorer(batch)
        total = len(noted.requests)
        return [
            {"work": row["work"], "number": number, "of": total, "request": json.dumps(messages)}
            for number, messages in enumerate(noted.requests)
        ]


def _whole(names: Iterable[str], rows: Iterable[dict[str, Any]], max_failed: float) -> Iterator[str]:
    """A piece of work per slice whose replies are all there; slices that ask nothing come last.

    Raises:
        CuveeError: replies are missing, or too many requests failed; the slice with the last one is not scored.
    """
    silent, failed = set(names), 0
    replies: dict[str, dict[int, Any]] = {}
    for asked, row in enumerate(rows, 1):
        silent.discard(row["work"])
        found = replies.setdefault(row["work"], {})
        found[int(row["number"])] = reply = _reply(row)
        failed += reply["text"] is None
        if failed > max(A_FEW, max_failed * asked):
            raise CuveeError(
                f"{failed} of {asked} requests failed, more than `max_failed` allows, the last with "
                f"{row['__inference_error__']!s:.300}; run again: what is finished is kept"
            )
        if len(found) == int(row["of"]):
            del replies[row["work"]]
            yield json.dumps({"work": row["work"], "replies": [found[number] for number in sorted(found)]})
    if replies:
        raise CuveeError(f"{len(replies)} slices did not get all their replies; run again: what is finished is kept")
    yield from (json.dumps({"work": name, "replies": []}) for name in sorted(silent))


def _reply(row: dict[str, Any]) -> dict[str, Any]:
    """What the stage gets; a request that failed has no text."""
    if row.get("__inference_error__"):
        return {"text": None, "tokens": None, "cut": False}
    reply: dict[str, Any] = json.loads(row["reply"])
    return reply


@dataclass(frozen=True)
class Hearing:
    """Scores slices whose replies are there."""

    box: Toolbox
    name: str

    def open(self) -> Task:
        """A worker for this stage alone."""
        worker = SliceWorker(self.box, [self.name])

        def task(text: str) -> Iterator[Report]:
            piece = json.loads(text)
            item = Work.from_json(json.loads(piece["work"]))
            try:
                with answering(piece["replies"]):
                    yield from [report for report, _ in worker.work(item)]
            except Exception as error:
                yield {"token": item.token, "error": described(error, item)}

        return task


def _given_up(text: str, why: str) -> Report:
    token = Work.from_json(json.loads(json.loads(text)["work"])).token
    return {"token": token, "bad": "worker_died", "message": why}


def processor(generation: Generation) -> Any:
    """Ray Data LLM's processor: a dataset with `request` in, the same rows with `reply` out."""
    from ray.data.llm import build_processor

    def preprocess(row: dict[str, Any]) -> dict[str, Any]:
        return {"messages": json.loads(row["request"]), "sampling_params": dict(generation.sampling)}

    def keep(row: dict[str, Any]) -> dict[str, Any]:
        return postprocess(row, generation.sampling["max_tokens"])

    return build_processor(processor_config(generation), preprocess=preprocess, postprocess=keep)


def processor_config(generation: Generation) -> Any:
    """Its configuration, by Ray's own checked model; neither a GPU nor vLLM is needed to build it."""
    from ray.data.llm import vLLMEngineProcessorConfig

    return vLLMEngineProcessorConfig(
        model_source=generation.model,
        engine_kwargs=dict(generation.engine),
        concurrency=generation.replicas,
        batch_size=generation.batch_size,
        should_continue_on_error=True,  # one sample that the engine refuses is that sample's matter
        log_engine_metrics=False,
        # The engine itself makes tokens of a prompt with an image, and text of tokens.
        prepare_multimodal_stage={"enabled": True, "chat_template_content_format": generation.content_format},
        chat_template_stage=True,
        tokenize_stage=False,
        detokenize_stage=False,
    )


def postprocess(row: dict[str, Any], most: int) -> dict[str, Any]:
    """What is kept of an answered row: text, per token its likeliest rivals with log-probabilities, whether it is cut.

    Ray passes on no reason why the engine stopped: an answer of `most` tokens, its end included, counts as cut.
    """
    logprobs = row.get("logprobs")
    tokens = None
    if logprobs is not None and len(logprobs):
        tokens = [_rivals(chosen, rivals) for chosen, rivals in zip(row["generated_tokens"], logprobs, strict=True)]
    reply = {"text": row["generated_text"], "tokens": tokens, "cut": len(row["generated_tokens"]) >= most}
    return {"work": row["work"], "number": row["number"], "of": row["of"], "reply": json.dumps(reply)}


def _rivals(chosen: Any, rivals: dict[Any, Any]) -> dict[str, float]:
    """Token text -> log-probability, the chosen one first; tables between operators fill absent tokens with None."""
    known = {str(token): facts for token, facts in rivals.items() if facts is not None}
    order = sorted(known, key=lambda token: (token != str(chosen), -known[token]["logprob"]))
    found: dict[str, float] = {}
    for token in order:
        found.setdefault(str(known[token]["decoded_token"]), min(0.0, float(known[token]["logprob"])))
    return found
