"""Evaluation: predictions per image, metrics with patient-cluster intervals, subgroups, calibration, tables, probes, comparisons."""
