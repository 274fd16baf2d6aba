"""Ingest on many machines: the functions of a local run as an Apache Beam pipeline, which ends in the same bytes."""
