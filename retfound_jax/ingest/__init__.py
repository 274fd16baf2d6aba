"""From a folder of photographs and a table to a dataset: readers, field-of-view crop, quality, duplicates, splits, the writer; no jax."""
