"""`retfound bench PART`: what this machine does, always beside a peer or a limit measured in the same run."""

from __future__ import annotations

SUMMARY = 'speed of the training step, the loader, an evaluation: JSON lines, always a ratio against a peer or a limit'
PARTS = {
    'step': 'retfound_jax.cli._bench_step',
    'loader': 'retfound_jax.cli._bench_loader',
    'quality': 'retfound_jax.cli._bench_quality',
    'ingest': 'retfound_jax.cli._bench_ingest',
    'parity': 'retfound_jax.cli._bench_parity',
    'evaluate': 'retfound_jax.cli._bench_evaluate',
}
