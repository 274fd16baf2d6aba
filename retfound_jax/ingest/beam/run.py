"""Runs an ingest as two Beam pipelines: photographs to facts and pairs of twins, then groups, splits and shards.

Between the two, and after, the machine that started it does what needs all of few things: it joins the patients of pairs, and
writes the index from the workers' parts and the manifest from their counts. It holds the list of files and the table, as a
local run does.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from retfound_jax.core.errors import UsageError, UserError
from retfound_jax.ingest import assemble, duplicates, pipeline, splits, work
from retfound_jax.ingest.beam import graph, place, twins
from retfound_jax.ingest.beam import job as jobs
from retfound_jax.ingest.beam.job import Job
from retfound_jax.ingest.plan import Plan, partial_folder
from retfound_jax.ingest.process import process

if TYPE_CHECKING:
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.runner import PipelineRunner

_WRONG_OPTIONS = 'Pipeline has validations errors'  # how Beam begins to say so
_STEP = re.compile(r" \[while running '[^']*'\]")
_SAID = re.compile(r'^retfound_jax\.core\.errors\.(?:UserError|UsageError): (.*)$', re.MULTILINE)
RUNNERS = {'direct': '', 'dataflow': 'DataflowRunner', 'flink': 'FlinkRunner', 'spark': 'SparkRunner'}


def run(
    plan: Plan, *, runner: str = 'direct', options: Sequence[str] = (), process: work.Process = process,
    done: Callable[[str], None] = lambda step: None,
) -> dict[str, Any]:
    """Makes the dataset and returns its manifest; its bytes are those of `pipeline.run`.

    Args:
      plan: What to make.
      runner: One of `RUNNERS`, or a class of a runner by its dotted name.
      options: Flags of Beam, `--name=value`.
      process: Reads one file; a function of a module that the workers have.
      done: Told each step that is over.

    Source and output are paths that every worker sees. What was read stays in `OUT.partial`, from which a later call goes on, this
    one or a local one; the dataset is renamed to its place at the very end.

    Raises:
      UserError: as `pipeline.run`, or the pipeline stopped. UsageError: Beam is not installed.
    """
    require()
    out = Path(plan.config.out).absolute()
    partial = partial_folder(out)
    pipeline.open_partial(partial, plan)
    job = jobs.make_job(plan, partial=partial, process=process)
    parts = jobs.deal(plan, job)
    jobs.fresh(job.folder(jobs.FACTS))
    done('parts are laid out')
    _run(functools.partial(graph.find_facts, job=job, parts=parts), runner=runner, options=options)
    done('photographs are read')
    rejects = _rejects(plan, job)
    found = duplicates.join(twins.pair(value) for value in _facts(job, graph.PAIR))
    place.write_groups(job, found.groups)
    for name in (jobs.DATASET, jobs.INDEX, jobs.SHARDS, jobs.CENSUS, jobs.UNFINISHED):
        jobs.fresh(job.folder(name))
    done('twins are joined')
    _run(functools.partial(graph.write_shards, job=job, parts=parts), runner=runner, options=options)
    done('shards are written')
    content = _finish(plan, job, out=out, rejects=rejects, found=found)
    done('the dataset is in its place')
    return content


def workers_options(workers: int) -> list[str]:
    """Beam's flags by which the direct runner has so many processes; 0 and 1: this one."""
    if workers < 2:
        return []
    return [f'--direct_num_workers={workers}', '--direct_running_mode=multi_processing', '--default_sdk_harness_log_level=ERROR']


def require() -> None:
    """Raises UsageError where Beam is not installed."""
    logging.disable(logging.WARNING)  # it warns of Google's libraries, wanted or not
    try:
        import apache_beam  # noqa: F401 - only asked for
    except ImportError as error:
        raise UsageError('an ingest on many machines needs Apache Beam; install it with `pip install retfound-jax[beam]`') from error
    finally:
        logging.disable(logging.NOTSET)


def _facts(job: Job, kind: str) -> list[list[Any]]:
    return sorted(jobs.read_lines(sorted(job.folder(jobs.FACTS).glob(f'{kind}-*.jsonl'))))


def _rejects(plan: Plan, job: Job) -> dict[str, str]:
    rejects = pipeline.all_rejects(plan, dict(_facts(job, graph.REJECT)))
    assemble.refuse_twice([key for _, _, key in _facts(job, graph.TWICE)])
    return rejects


def _finish(plan: Plan, job: Job, *, out: Path, rejects: Mapping[str, str], found: duplicates.Duplicates) -> dict[str, Any]:
    splits.given_splits((group, split, key) for _, _, group, split, key in _facts(job, graph.SIDES))
    shards, census = place.read_shards(job)
    written = sum(shard.count for shard in shards)
    if written != sum(one.images.rows for one in census.values()):
        raise AssertionError(f'{written} records are in the shards, and not all of them in the counts')
    folder = job.folder(jobs.DATASET)
    state = assemble.Written(shards=shards, census=census, twins=found, rejects=rejects)
    content = assemble.finish(folder, plan=plan, written=state, index=place.read_index(job))
    pipeline.publish(folder, out)
    shutil.rmtree(job.partial)
    return content


def _run(build: Callable[[beam.Pipeline], None], *, runner: str, options: Sequence[str]) -> None:
    """Runs one pipeline to its end; what a worker says to the user is said as if it happened here."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions

    told = PipelineOptions(list(options))
    name = _direct(told) if runner == 'direct' else RUNNERS.get(runner, runner)
    try:
        root = beam.Pipeline(runner=name, options=told)
        build(root)
        root.run().wait_until_finish()
    except ImportError as error:
        raise UsageError(f'the runner {runner} needs more than Beam itself: {error}') from error
    except ValueError as error:
        if not str(error).startswith(_WRONG_OPTIONS):
            raise
        raise UsageError(f'the runner {runner} cannot start: {" ".join(str(error).split())}; see --beam_option') from error
    except (UserError, *_failures(runner)) as error:
        raise UserError(_sentence(error, runner=runner)) from error


def _direct(options: PipelineOptions) -> PipelineRunner:
    """Beam's own runner, here or in processes of this machine, which are told the options.

    The one it names DirectRunner would first try to fetch a program from the network.
    """
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner.fn_runner import ExtendedProvisionInfo, FnApiRunner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    told = beam_provision_api_pb2.ProvisionInfo(pipeline_options=JobServiceHandle.encode_pipeline_options(options.get_all_options()))
    return FnApiRunner(provision_info=ExtendedProvisionInfo(told))


def _failures(runner: str) -> tuple[type[Exception], ...]:
    """What Beam raises where a worker failed elsewhere."""
    from apache_beam.error import BeamError

    if runner != 'dataflow':
        return RuntimeError, BeamError
    from apache_beam.runners.dataflow.dataflow_runner import DataflowRuntimeException

    return RuntimeError, BeamError, DataflowRuntimeException


def _sentence(error: Exception, *, runner: str) -> str:
    """What a worker's UserError said, from Beam's account of it; else the last line of that account."""
    text = _STEP.sub('', str(error)).strip()
    if isinstance(error, UserError):
        return text
    said = _SAID.findall(text)
    last = text.splitlines()[-1] if text else type(error).__name__
    return said[-1] if said else f'the pipeline on {runner} stopped: {last}; what was read is kept, so start the same command again'
