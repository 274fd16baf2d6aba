"""Training state: one declaration gives abstract shapes, shardings and the jitted initialisation."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from retfound_jax.core.mesh import ShardingRules, moment_spec, param_spec, replicated
from retfound_jax.tasks.base import Task
from retfound_jax.train import spikes

Tree = Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """What a step reads and writes. `halted` turns true at the bad step that ends a run and stays so: later steps change nothing.

    Its structure does not depend on `TrainConfig.faults`, so a run may go on with others.
    """

    step: jax.Array  # int32 [], of steps done or left out
    params: Tree
    opt_state: Tree
    ema: Tree  # averaged parameters, or an empty dict
    halted: jax.Array  # bool []
    recent: jax.Array  # float32 [2, WINDOW], what the last steps measured (train/spikes.py)
    skipped: jax.Array  # int32 [], steps whose update was left out


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A task's model without its arrays: how to build it again around a plain tree of parameters."""

    graphdef: nnx.GraphDef
    abstract: nnx.State  # shapes, dtypes and letters
    letters: dict[str, str]  # dotted path to array letters

    def merge(self, params: Tree) -> nnx.Module:
        """The model around `params`, a nested dict of arrays."""
        # Variables are rebuilt, so that the abstract ones stay abstract whoever traces this.
        state = jax.tree.map(lambda x: x, self.abstract)
        nnx.replace_by_pure_dict(state, params)
        return nnx.merge(self.graphdef, state)


def model_spec(task: Task) -> ModelSpec:
    """Shapes and letters of a task's model, without allocating it."""
    graphdef, abstract = nnx.split(nnx.eval_shape(lambda: task.init(rngs=nnx.Rngs(0))))
    letters = {'.'.join(map(str, path)): variable.get_metadata()['letters'] for path, variable in nnx.to_flat_state(abstract)}
    return ModelSpec(graphdef=graphdef, abstract=abstract, letters=letters)


def path_string(path: tuple) -> str:
    """A key path of a nested dict as dotted text."""
    return '.'.join(str(getattr(key, 'key', getattr(key, 'idx', key))) for key in path)


def param_shardings(spec: ModelSpec, *, mesh: Mesh, rules: ShardingRules) -> Tree:
    """A tree of shardings like the parameters, by the rules."""

    def place(path: tuple, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        return NamedSharding(mesh, param_spec(spec.letters[path_string(path)], leaf.shape, rules=rules, mesh=mesh))

    return jax.tree_util.tree_map_with_path(place, abstract_params(spec))


def moment_shardings(spec: ModelSpec, *, mesh: Mesh, rules: ShardingRules, zero: bool) -> Tree:
    """A tree of shardings like the parameters for what an update is made of: gradients, moments, averages."""
    params = param_shardings(spec, mesh=mesh, rules=rules)

    def place(path: tuple, leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> NamedSharding:
        lead = len(leaf.shape) - len(spec.letters[path_string(path)])
        return NamedSharding(mesh, moment_spec(sharding.spec, leaf.shape, lead=lead, mesh=mesh))

    return jax.tree_util.tree_map_with_path(place, abstract_params(spec), params) if zero else params


def abstract_params(spec: ModelSpec) -> Tree:
    """The parameters' shapes and dtypes as a nested dict."""
    return nnx.to_pure_dict(spec.abstract)


def init_params(task: Task, *, seed: int, shardings: Tree) -> Tree:
    """Initialises the parameters straight into their shards."""

    def init(key: jax.Array) -> Tree:
        return nnx.to_pure_dict(nnx.state(task.init(rngs=nnx.Rngs(key))))

    return jax.jit(init, out_shardings=shardings)(jax.random.key(seed))


def state_shardings(
    spec: ModelSpec, tx: optax.GradientTransformation, *, mesh: Mesh, rules: ShardingRules, ema: bool, zero: bool = False
) -> TrainState:
    """Where every leaf of the state lives: moments with their parameters or, with `zero`, split further; scalars everywhere."""
    params = param_shardings(spec, mesh=mesh, rules=rules)
    moments = moment_shardings(spec, mesh=mesh, rules=rules, zero=zero)
    everywhere = replicated(mesh)
    opt_abstract = jax.eval_shape(tx.init, abstract_params(spec))

    def place(leaf: Tree, sharding: NamedSharding) -> Tree:
        return leaf if isinstance(leaf, optax.MaskedNode) else sharding  # a frozen parameter has no moments

    opt = optax.tree_utils.tree_map_params(
        tx, place, opt_abstract, moments, transform_non_params=lambda _: everywhere, is_leaf=lambda leaf: isinstance(leaf, optax.MaskedNode)
    )
    ema_places = moments if ema else {}
    return TrainState(
        step=everywhere, params=params, opt_state=opt, ema=ema_places, halted=everywhere, recent=everywhere, skipped=everywhere
    )


def init_state(params: Tree, tx: optax.GradientTransformation, *, shardings: TrainState) -> TrainState:
    """The state before the first step."""

    def init(params: Tree) -> TrainState:
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            opt_state=tx.init(params),
            ema=jax.tree.map(jnp.copy, params) if shardings.ema else {},
            halted=jnp.zeros((), bool),
            recent=spikes.no_steps(),
            skipped=jnp.zeros((), jnp.int32),
        )

    return jax.jit(init, out_shardings=shardings)(params)
