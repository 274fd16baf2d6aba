"""Foundation models for retinal images in JAX. What lives where: see the docstring of each room (core, ingest, data, models, ...).

In a notebook: `model = retfound_jax.load(path)`, then `model.predict(images)`, `model.embed(images)`, `model.attention(images)`.
"""

__version__ = '0.1.0'

_FRONT = {'load': 'retfound_jax.api.loading', 'Model': 'retfound_jax.api.model'}


def __getattr__(name: str) -> object:
    # JAX takes a second to import; whoever wants the version, or a verb that does without it, need not wait.
    if name in _FRONT:
        import importlib

        return getattr(importlib.import_module(_FRONT[name]), name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_FRONT])
