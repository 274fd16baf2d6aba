"""Batches: sources (our datasets, any TFDS dataset, the phantom), transforms and the Grain loader."""
