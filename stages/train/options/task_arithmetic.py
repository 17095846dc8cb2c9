"""Task arithmetic (arXiv:2212.04089; in the tangent space, arXiv:2305.12827): connectors of sources, added up.

Connectors of S sources, trained from one start theta_0, have the task vectors tau_s = theta_s - theta_0. The merge

    theta_0 + sum_s w_s tau_s

stands in for a connector trained on the mixture w: S runs answer for all mixtures. It is a proxy; how well it ranks
mixtures is measured in `bench/task_arithmetic.py`. Linearised, a task vector acts on what the connector says,

    f(x; theta_0) + tau . grad f(x; theta_0),

one Jacobian-vector product, and is then additive by construction.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from schemas.errors import CuveeError

if TYPE_CHECKING:
    import torch

State = Mapping[str, "torch.Tensor"]


def task_vectors(start: State, trained: Mapping[str, State]) -> "dict[str, dict[str, torch.Tensor]]":
    """theta_s - theta_0 of every source, in double precision; what is no float has none.

    Raises:
        CuveeError: a state with other tensors than the start.
    """
    for source, state in trained.items():
        if shapes(state) != shapes(start):
            raise CuveeError(
                f"the connector of {source!r} holds other tensors than the start; train all from one start"
            )
    return {
        source: {name: state[name].double() - start[name].double() for name in start if start[name].is_floating_point()}
        for source, state in trained.items()
    }


def merged(
    start: State, vectors: "Mapping[str, Mapping[str, torch.Tensor]]", weights: Mapping[str, float]
) -> "dict[str, torch.Tensor]":
    """theta_0 + sum_s w_s tau_s, in the start's types; sources are added in the order of their names.

    Raises:
        CuveeError: weights of other sources than there are vectors.
    """
    if set(weights) != set(vectors):
        raise CuveeError(f"found weights of {sorted(weights)}, expected those of {sorted(vectors)}")
    return {
        name: value + combined(vectors, weights, name).to(value) if value.is_floating_point() else value.clone()
        for name, value in start.items()
    }


def combined(
    vectors: "Mapping[str, Mapping[str, torch.Tensor]]", weights: Mapping[str, float], name: str
) -> "torch.Tensor":
    """sum_s w_s tau_s of one tensor."""
    parts = [weights[source] * vectors[source][name] for source in sorted(vectors)]
    total = parts[0]
    for one in parts[1:]:
        total = total + one
    return total


def linearised(module: "torch.nn.Module", start: State, vector: State) -> "Callable[[torch.Tensor], torch.Tensor]":
    """x -> f(x; theta_0) + tau . grad f(x; theta_0) of a module; of a linear module that is f(x; theta_0 + tau)."""
    import torch

    trained = {name for name, _ in module.named_parameters()}
    held = {name: value for name, value in start.items() if name not in trained}
    at = {name: start[name] for name in trained}
    along = {name: vector[name].to(start[name]) for name in trained}

    def run(x: torch.Tensor) -> torch.Tensor:
        def say(values: dict[str, torch.Tensor]) -> torch.Tensor:
            said: torch.Tensor = torch.func.functional_call(module, {**held, **values}, (x,))
            return said

        said, change = torch.func.jvp(say, (at,), (along,))[:2]
        moved: torch.Tensor = said + change
        return moved

    return run


def shapes(state: State) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(value.shape) for name, value in state.items()}
