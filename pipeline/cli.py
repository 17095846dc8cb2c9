"""The `cuvee` command. Human text goes to stderr, `--json` to stdout; 0 done, 1 failed, 2 refused before any work."""

import contextlib
import errno
import json
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from schemas.errors import CuveeError, RecipeError

if TYPE_CHECKING:
    from pipeline.cluster import Cluster
    from pipeline.resolve import Resolved
    from pipeline.run import Outcome
    from pipeline.score import Progress

    Job = Callable[[Resolved, Cluster, Progress], Outcome]

app = typer.Typer(
    name="cuvee",
    help="Turns pools of image-text shards into the best training set for a target and a budget, on Ray.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

DISK_FAULTS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
"""What a user mends, wherever it strikes."""

RecipePath = Annotated[Path, typer.Argument(help="the recipe, a YAML file", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="print the summary as one JSON object on stdout")]
Address = Annotated[str | None, typer.Option(help="a running Ray cluster; default: this machine")]
Verify = Annotated[bool, typer.Option("--verify", help="digest every shard instead of trusting its size and time")]
Workers = Annotated[int | None, typer.Option(min=1, help="CPUs of the local cluster; default: all")]


def main() -> None:
    """Entry point: turns our errors into exit codes and one readable message."""
    # A scheduler's polite stop is a Ctrl-C: the cluster is left and finished slices stay.
    signal.signal(signal.SIGTERM, lambda *_: _interrupt())
    try:
        app(standalone_mode=False)
    except RecipeError as error:
        _say(f"refused: {error}")
        sys.exit(2)
    except CuveeError as error:
        _say(f"failed: {error}")
        sys.exit(1)
    except OSError as error:
        if error.errno not in DISK_FAULTS:
            raise
        _say(f"failed: {error}; free space or make the folder writable, then run again: what is finished is kept")
        sys.exit(1)
    except KeyboardInterrupt:
        _say("stopped; what is finished is kept, run the same command to continue")
        sys.exit(130)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except typer.Abort:
        sys.exit(130)
    except Exception as error:
        if not _is_usage_error(error):
            raise
        error.show()  # type: ignore[attr-defined]
        sys.exit(2)


def _interrupt() -> None:
    raise KeyboardInterrupt


def _is_usage_error(error: Exception) -> bool:
    return hasattr(error, "show") and hasattr(error, "exit_code")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _answer(value: Any, as_json: bool, text: str) -> None:
    if as_json:
        print(json.dumps(value, sort_keys=True, allow_nan=False))
    else:
        _say(text)


@app.command()
def init(
    name: Annotated[str, typer.Argument(help="which starter; `cuvee init list` names them")],
    out: Annotated[Path | None, typer.Option(help="file to write; default NAME.yaml here")] = None,
) -> None:
    """Write a commented starter recipe."""
    from pipeline.starters import starter, starters

    if name == "list":
        _say("\n".join(f"{key:18} {line}" for key, line in starters().items()))
        return
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise RecipeError(f"{path} exists already; name another file with --out")
    text = starter(name)
    path.write_text(text)
    _say(f"wrote {path}; edit its paths, then `cuvee check {path}`")


@app.command()
def check(recipe: RecipePath, as_json: Json = False) -> None:
    """Validate a recipe without Ray: schema, columns, shards, models; then print the plan."""
    _print_plan(recipe, as_json, models=True, gpu_hour=None)


@app.command()
def plan(
    recipe: RecipePath,
    price: Annotated[str | None, typer.Option(help="e.g. gpu_hour=2.5 or worker_hour=0.1")] = None,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Say what is missing, per stage, why, and with what time and cost by measured throughputs."""
    _print_plan(recipe, as_json, models=False, gpu_hour=price, verify=verify)


def _print_plan(recipe: Path, as_json: bool, *, models: bool, gpu_hour: str | None, verify: bool = False) -> None:
    from pipeline.estimate import estimate, plan_text
    from pipeline.resolve import resolve

    resolved = resolve(recipe, models=models)
    if resolved.recipe.trials is not None:
        from pipeline.trials import asked

        asked(resolved)
    facts = estimate(resolved, gpu_hour, verify=verify)
    _answer(facts, as_json, plan_text(facts))


@app.command()
def run(
    recipe: RecipePath,
    until: Annotated[str, typer.Option(help="score | select | mix | export | train")] = "train",
    address: Address = None,
    workers: Workers = None,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Do what is missing, write ledger, export and report, and say where they are."""
    from pipeline.resolve import resolve

    until = _stop(until)
    outcome = _ran(lambda: resolve(recipe), until, address, workers, verify)
    _answer(_summary(outcome), as_json, _summary_text(outcome))


@app.command()
def export(recipe: RecipePath, address: Address = None, workers: Workers = None, as_json: Json = False) -> None:
    """Run a recipe up to its exported shards."""
    run(recipe, "export", address, workers, as_json=as_json)


@app.command()
def train(
    places: Annotated[
        list[str], typer.Argument(help="the recipe; with --compare, two or more selections: [NAME=]PLACE")
    ],
    side_by_side: Annotated[
        bool,
        typer.Option("--compare", help="compare runs or exports: same budget, starts and held-out pairs"),
    ] = False,
    recipe: Annotated[
        Path | None, typer.Option(help="with --compare: whose `train` and held-out pairs; default: the first run's")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="with --compare: folder for the outcome")] = None,
    address: Address = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run a recipe to the end: the connector trained on raw, random and curated data; or compare selections."""
    if side_by_side:
        _contest(places, recipe, out, address, workers, as_json)
    elif len(places) > 1 or recipe is not None or out is not None:
        raise RecipeError("expected one recipe; several selections are compared with `cuvee train --compare A B ...`")
    else:
        _train(Path(places[0]), address, workers, as_json)


def _contest(
    places: list[str], recipe: Path | None, out: Path | None, address: str | None, workers: int | None, as_json: bool
) -> None:
    from pipeline.cluster import Cluster
    from pipeline.lock import holding
    from pipeline.training.contest import contest, hold_contest
    from pipeline.training.text import contest_text

    asked = contest(places, recipe)

    def work(progress: "Progress") -> dict[str, Any]:
        with holding(asked.root), Cluster(address, workers) as cluster:
            return hold_contest(asked, out, cluster, progress)

    told: dict[str, Any] = _with_progress(work)
    _answer(told, as_json, contest_text(told))


def _train(recipe: Path, address: str | None, workers: int | None, as_json: bool) -> None:
    from pipeline.resolve import load_recipe

    if load_recipe(recipe).train is None:
        raise RecipeError(f"{recipe} has no `train` section; add one to compare raw, random and curated data")
    run(recipe, "train", address, workers, as_json=as_json)


@app.command()
def llava(
    run: Annotated[Path, typer.Argument(help="a run's folder, or a workspace or recipe: its newest run")],
    out: Annotated[Path, typer.Argument(help="folder to write; there must be none of that name")],
    arm: Annotated[str, typer.Option(help="whose connector: raw, random or curated")] = "curated",
    seed: Annotated[int, typer.Option(min=0, help="number of the seed")] = 0,
    as_json: Json = False,
) -> None:
    """Write a trained connector with its two models as a LLaVA-style folder that transformers loads."""
    from pipeline.training.llava import export_llava

    facts = export_llava(run, out, arm, seed)
    apart = f"logits within {facts['largest_difference']:.1e} of the trained models'"
    _answer(facts, as_json, f"wrote {facts['folder']}; {apart}; README.md in it says how to load it")


@app.command()
def compare(
    recipe: RecipePath,
    train: Annotated[bool, typer.Option("--train", help="also train a connector on each choice")] = False,
    address: Address = None,
    workers: Workers = None,
    verify: Verify = False,
    as_json: Json = False,
) -> None:
    """Hold the selectors under `compare` side by side, at one budget, on what the other rules leave."""
    from pipeline.comparison import compare_selectors
    from pipeline.comparison.text import comparison_text
    from pipeline.resolve import resolve

    def work(resolved: "Resolved", cluster: "Cluster", progress: "Progress") -> "Outcome":
        return compare_selectors(resolved, cluster, train=train, progress=progress, verify=verify)

    outcome = _done(lambda: resolve(recipe), work, address, workers)
    facts = {**(outcome.comparison or {}), "folder": str(outcome.folder), "report": str(outcome.folder / "report.html")}
    _answer(facts, as_json, comparison_text(facts))


@app.command()
def trials(
    recipe: RecipePath, address: Address = None, workers: Workers = None, verify: Verify = False, as_json: Json = False
) -> None:
    """Run pilots on designed mixtures of the sources, as `trials` of the recipe says, and write their table."""
    from pipeline.resolve import resolve
    from pipeline.trials import run_trials
    from pipeline.trials.text import trials_text

    def work(resolved: "Resolved", cluster: "Cluster", progress: "Progress") -> "Outcome":
        return run_trials(resolved, cluster, progress=progress, verify=verify)

    outcome = _done(lambda: resolve(recipe, trials=False), work, address, workers)
    facts = {**(outcome.trials or {}), "report": str(outcome.folder / "report.html")}
    _answer(facts, as_json, trials_text(facts))


@app.command()
def report(
    workspace: Annotated[Path, typer.Argument(help="workspace, or one run's folder inside it")],
    as_json: Json = False,
) -> None:
    """Name a run's report, the newest by default."""
    folder = _run_folder(workspace)
    page = folder / "report.html"
    if not page.exists():
        raise CuveeError(f"{folder} holds no report; run its recipe again to write one")
    _answer({"report": str(page)}, as_json, str(page))


@app.command()
def explain(
    uid: Annotated[str, typer.Argument(help="a sample's uid, or its first digits")],
    workspace: Annotated[Path, typer.Option(help="workspace, or one run's folder inside it")] = Path("work"),
    as_json: Json = False,
) -> None:
    """Tell one sample's whole story: where it is, every score, who decided what and why."""
    from pipeline.explain import story, story_text

    facts = story(_run_folder(workspace), uid)
    _answer(facts, as_json, story_text(facts))


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="a run's name or folder")],
    after: Annotated[str, typer.Argument(help="another one; default: the newest")] = "latest",
    workspace: Annotated[Path, typer.Option(help="where the runs lie")] = Path("work"),
    as_json: Json = False,
) -> None:
    """Tell what changed between two runs: shards, settings, versions, and every fate that changed with them."""
    from pipeline.diff import diff as compare
    from pipeline.diff import diff_text

    facts = compare(_named_run(before, workspace), _named_run(after, workspace))
    _answer(facts, as_json, diff_text(facts))


@app.command()
def gc(
    workspace: Annotated[Path, typer.Argument(help="the workspace to tidy")],
    recipe: Annotated[list[Path] | None, typer.Option(help="also keep what this recipe needs; may be repeated")] = None,
    runs: Annotated[int | None, typer.Option(min=1, help="newest runs to keep; default: all")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="remove; without it only the list is printed")] = False,
    as_json: Json = False,
) -> None:
    """List what no run and no named recipe needs; with --yes, remove it."""
    from pipeline.gc import collect, garbage_text

    facts = collect(workspace, recipe or [], runs, remove=yes)
    _answer(facts, as_json, garbage_text(facts))


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to write into")] = Path("demo"),
    pairs: Annotated[int, typer.Option(min=1000, help="size of the generated pool")] = 3000,
    control: Annotated[bool, typer.Option(help="generate the pool without planted defects")] = False,
    mixture: Annotated[bool, typer.Option(help="generate sources with known best shares, and find those")] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Generate a corpus with planted defects, curate it, train on it, and check the result against the truth."""
    from pipeline.demo.show import show
    from pipeline.demo.show_mixture import show_mixture

    if mixture and control:
        raise RecipeError("--control leaves out planted defects, and --mixture plants none; choose one of them")

    def work(progress: "Progress") -> "Outcome":
        if mixture:
            return show_mixture(out, pairs, workers, progress)
        return show(out, pairs, not control, workers, progress)

    outcome = _with_progress(work)
    _answer(_summary(outcome), as_json, _summary_text(outcome))


def _stop(until: str) -> str:
    from pipeline.resolve import nearest
    from pipeline.run import ORDER

    if until not in ORDER:
        raise RecipeError(f"--until {until!r} is no part of a run{nearest(until, ORDER)}")
    return until


def _ran(resolve_recipe: Any, until: Any, address: str | None, workers: int | None, verify: bool) -> "Outcome":
    from pipeline.run import run as run_recipe

    def work(resolved: "Resolved", cluster: "Cluster", progress: "Progress") -> "Outcome":
        return run_recipe(resolved, cluster, until=until, progress=progress, verify=verify)

    return _done(resolve_recipe, work, address, workers)


def _done(resolve_recipe: Any, job: "Job", address: str | None, workers: int | None) -> "Outcome":
    from pipeline.cluster import Cluster
    from pipeline.lock import holding
    from pipeline.present import present
    from pipeline.run import finish

    resolved = resolve_recipe()

    def work(progress: "Progress") -> "Outcome":
        with holding(resolved.workspace.root) as held:
            resolved.workspace.held_by = held.run
            if held.left is not None:
                _say(f"{held.left} died while it held {resolved.workspace.root}; going on from what it finished")
            with Cluster(address, workers) as cluster:
                outcome = job(resolved, cluster, progress)
            present(outcome)
            finish(outcome)
        return outcome

    outcome: Outcome = _with_progress(work)
    return outcome


def _with_progress(work: Any) -> Any:
    """Run `work` with a live line on stderr; quiet where stderr is no terminal.

    Meanwhile stdout is closed to others: Ray prints there when it tries a dead worker's task again.
    """
    with contextlib.redirect_stdout(sys.stderr), _bar() as progress:
        return work(progress)


@contextlib.contextmanager
def _bar() -> Iterator["Progress"]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}

        def advance(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield advance


def _run_folder(place: Path) -> Path:
    if (place / "run.json").exists():
        return place
    from pipeline.sidecars import Workspace

    workspace = Workspace(place)
    newest = workspace.latest_run()
    if newest is None:
        raise CuveeError(f"{place} holds no finished run; name a workspace or a folder below its runs/")
    return workspace.run(newest)


def _named_run(name: str, workspace: Path) -> Path:
    if name == "latest":
        return _run_folder(workspace)
    folder = workspace / "runs" / name
    found = folder if (folder / "run.json").exists() else Path(name)
    if not (found / "run.json").exists():
        raise CuveeError(
            f"{name!r} is no finished run of {workspace} and no run's folder; `ls {workspace}/runs` names them"
        )
    return found


def _summary(outcome: "Outcome") -> dict[str, Any]:
    record = outcome.record
    facts = {
        name: record[name] for name in ("run", "samples", "computed", "ray_started", "seconds", "shares", "export")
    }
    page = outcome.folder / "report.html"
    return {**facts, "folder": str(outcome.folder), "report": str(page), "training": record["training"]}


def _summary_text(outcome: "Outcome") -> str:
    from pipeline.summary import summary_text

    return summary_text(outcome)


if __name__ == "__main__":
    main()
