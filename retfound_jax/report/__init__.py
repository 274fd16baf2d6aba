"""The report: one self-contained page a clinician can read, made from the files of a run directory.

`collect` and `tables` read the files, `figures` draws, the files named after a part of the page (`summary`, `people`, `results`,
`subgroups`, `mistakes`, `training`, `provenance`) put words and pictures into `blocks`, `html` turns blocks into a page, and
`page` is the way in. Everything that comes from a label file is hostile text until `html` has escaped it. No jax here.
"""
