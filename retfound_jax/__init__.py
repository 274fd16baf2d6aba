"""Foundation models for retinal images in JAX. What lives where: see the docstring of each room (core, ingest, data, models, ...)."""

__version__ = '0.1.0'
