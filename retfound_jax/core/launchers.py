"""Which process of how many this one is: from flags, or from the environment of what started it.

Read are, in this order: flags; RETFOUND_COORDINATOR, RETFOUND_PROCESS_ID and RETFOUND_NUM_PROCESSES, which our own manifests set;
SLURM (slurm.schedmd.com/srun.html, output environment variables); Open MPI; Cloud TPU on Kubernetes. A Cloud TPU machine outside
Kubernetes says so only through its metadata server: `--coordinator auto` asks JAX to look there.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Iterator, Mapping

from retfound_jax.core.errors import UsageError

PORT = 8476  # of process 0, where nobody says another one
AUTO = 'auto'
_COORDINATOR, _INDEX, _COUNT = 'RETFOUND_COORDINATOR', 'RETFOUND_PROCESS_ID', 'RETFOUND_NUM_PROCESSES'
_PER_JOB = 'RETFOUND_PROCESSES_PER_JOB'
_MOST = 100_000  # processes, and hosts in a list


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """What a process must know to join the others."""

    coordinator: str  # host:port of process 0
    index: int
    count: int
    origin: str  # who said so: 'flags', 'environment', 'SLURM', 'Open MPI', 'Cloud TPU', 'JAX'
    device: int | None = None  # the one device of the host that is this process' own; None for all that it sees


def find(
    *, coordinator: str = '', process_id: int | None = None, num_processes: int | None = None, environ: Mapping[str, str] = os.environ
) -> Start | None:
    """What flags and environment say; None for a run of one process.

    `coordinator` alone only replaces the address that the launcher gives; `auto` asks JAX, which knows the metadata of Cloud TPU.

    Raises:
      UsageError: a setting is missing, or does not fit the others.
    """
    if coordinator == AUTO:
        return _of_jax()
    if process_id is not None or num_processes is not None:
        return _checked(
            {'--coordinator': coordinator, '--process_id': process_id, '--num_processes': num_processes}, origin='flags'
        )
    for source in (_of_ours, _of_slurm, _of_open_mpi, _of_tpu):
        if found := source(environ, coordinator):
            return found if found.count > 1 else None
    if coordinator:
        raise UsageError('--coordinator without --process_id and --num_processes: give all three, or let a launcher say the other two')
    return None


def hosts_of(text: str) -> Iterator[str]:
    """The hosts of a SLURM list such as `node[001-003,7],gpu1,rack[1-2]n[0-9]`, in its order, the last bracket running fastest.

    Raises:
      UsageError: it is no such list, or names more than 100,000 hosts.
    """
    if not re.fullmatch(r'(?:[\w.-]|\[[\d,-]+\]|,)+', text):
        raise UsageError(f'"{text[:200]}" is not a list of hosts as SLURM writes it')
    count = 0
    for word in re.findall(r'(?:[^,\[\]]|\[[^\]]*\])+', text):
        parts = re.split(r'\[([^\]]*)\]', word)
        for numbers in itertools.product(*(list(_numbers(part)) for part in parts[1::2])):
            count += 1
            if count > _MOST:
                raise UsageError(f'"{text[:200]}" names more than {_MOST} hosts')
            yield ''.join(itertools.chain.from_iterable(itertools.zip_longest(parts[::2], numbers, fillvalue='')))


def _numbers(text: str) -> Iterator[str]:
    """`001-003,7` as 001, 002, 003, 7: a number is as wide as the first of its range is written."""
    for piece in text.split(','):
        first, dash, last = piece.partition('-')
        last = last if dash else first
        if not (first.isdecimal() and last.isdecimal()) or not int(first) <= int(last) < int(first) + _MOST:
            raise UsageError(f'"[{text[:200]}]" is not a range of hosts as SLURM writes it')
        yield from (f'{number:0{len(first)}d}' for number in range(int(first), int(last) + 1))


def _of_ours(environ: Mapping[str, str], coordinator: str) -> Start | None:
    """What the manifests of launch/ set. In a JobSet the pod's number is counted within its job: JOB_INDEX counts the jobs."""
    if not any(environ.get(name) for name in (_COORDINATOR, _INDEX, _COUNT)):
        return None
    given: dict[str, object] = {name: environ.get(name) for name in (_COORDINATOR, _INDEX, _COUNT)}
    given[_COORDINATOR] = coordinator or given[_COORDINATOR]
    if not given[_INDEX] and environ.get('JOB_COMPLETION_INDEX'):
        job, per_job = (_number(name, environ.get(name) or default) for name, default in (('JOB_INDEX', '0'), (_PER_JOB, '0')))
        if job and not per_job:
            raise UsageError(f'JOB_INDEX is {job} but {_PER_JOB} is not set: say how many processes each job of the set has')
        given[_INDEX] = job * per_job + _number('JOB_COMPLETION_INDEX', environ['JOB_COMPLETION_INDEX'])
    return _checked(given, origin='environment')


def _of_slurm(environ: Mapping[str, str], coordinator: str) -> Start | None:
    """A step of more than one task; the same command in the batch script itself, or in `salloc`, is one process that waits for nobody."""
    job, tasks = environ.get('SLURM_JOB_ID'), environ.get('SLURM_STEP_NUM_TASKS') or environ.get('SLURM_NTASKS')
    if not job or not tasks or _number('SLURM_NTASKS', tasks) <= 1:
        return None
    rank, nodes = environ.get('SLURM_PROCID'), environ.get('SLURM_STEP_NODELIST')
    if not rank or not nodes:
        missing = 'SLURM_PROCID' if not rank else 'SLURM_STEP_NODELIST'
        raise UsageError(f'SLURM gives {tasks} tasks but no {missing}: start it with srun, or srun --ntasks=1 for one process')
    # Above the ports that Linux gives out by itself (32768 to 60999), and another one for each step that may share a node.
    port = 61440 + (31 * _number('SLURM_JOB_ID', job) + _number('SLURM_STEP_ID', environ.get('SLURM_STEP_ID') or '0')) % 4096
    address = coordinator or f'{next(hosts_of(nodes))}:{port}'
    found = _checked({'coordinator': address, 'SLURM_PROCID': rank, 'SLURM_NTASKS': tasks}, origin='SLURM')
    return dataclasses.replace(found, device=_own_device(environ, found.count))


def _own_device(environ: Mapping[str, str], count: int) -> int | None:
    """Where several tasks share a node whose GPUs they all see, each takes the one of its own number there."""
    nodes, local = environ.get('SLURM_STEP_NUM_NODES') or environ.get('SLURM_NNODES'), environ.get('SLURM_LOCALID')
    seen = environ.get('CUDA_VISIBLE_DEVICES') or environ.get('SLURM_STEP_GPUS') or ''
    shared = nodes and local and count > _number('SLURM_STEP_NUM_NODES', nodes) and ',' in seen
    return _number('SLURM_LOCALID', local) if shared else None


def _of_open_mpi(environ: Mapping[str, str], coordinator: str) -> Start | None:
    count = environ.get('OMPI_COMM_WORLD_SIZE')
    if not count or _number('OMPI_COMM_WORLD_SIZE', count) <= 1:
        return None
    if not coordinator:
        raise UsageError(f'Open MPI started {count} processes and does not say where process 0 is: give --coordinator host:port')
    given = {'--coordinator': coordinator, 'OMPI_COMM_WORLD_RANK': environ.get('OMPI_COMM_WORLD_RANK'), 'OMPI_COMM_WORLD_SIZE': count}
    return _checked(given, origin='Open MPI')


def _of_tpu(environ: Mapping[str, str], coordinator: str) -> Start | None:
    """What Kubernetes sets for the hosts of a slice, and MEGASCALE_* for several slices, numbered slice by slice."""
    hosts = [host for host in (environ.get('TPU_WORKER_HOSTNAMES') or '').split(',') if host]
    slices = _number('MEGASCALE_NUM_SLICES', environ.get('MEGASCALE_NUM_SLICES') or '1')
    if not hosts or len(hosts) * slices == 1:
        return None
    worker = environ.get('TPU_WORKER_ID')
    if not worker:
        raise UsageError(f'TPU_WORKER_HOSTNAMES names {len(hosts)} hosts but TPU_WORKER_ID is not set: give --process_id and the others')
    index = _number('MEGASCALE_SLICE_ID', environ.get('MEGASCALE_SLICE_ID') or '0') * len(hosts) + _number('TPU_WORKER_ID', worker)
    first = (environ.get('MEGASCALE_COORDINATOR_ADDRESS') or hosts[0]).split(':')[0]
    if slices > 1 and not environ.get('MEGASCALE_COORDINATOR_ADDRESS') and not coordinator:
        raise UsageError(f'there are {slices} slices but MEGASCALE_COORDINATOR_ADDRESS is not set: give --coordinator host:port')
    return _checked(
        {'coordinator': coordinator or f'{first}:{PORT}', 'TPU_WORKER_ID': index, 'TPU_WORKER_HOSTNAMES': len(hosts) * slices},
        origin='Cloud TPU',
    )


def _of_jax() -> Start | None:
    from retfound_jax.core import host_store  # JAX is loaded only where it is asked

    coordinator, index, count = host_store.detect()
    if None in (coordinator, index, count):
        raise UsageError('--coordinator auto: JAX finds no cluster that it knows here; give --coordinator, --process_id, --num_processes')
    return _checked({'coordinator': coordinator, 'process': index, 'processes': count}, origin='JAX') if count > 1 else None


def _checked(given: Mapping[str, object], *, origin: str) -> Start:
    """The start that three settings, by their names, describe: coordinator, number, how many."""
    (where, coordinator), (which, index), (many, count) = given.items()
    missing = [name for name, value in given.items() if value in (None, '')]
    if missing:
        raise UsageError(f'{" and ".join(name for name in given if name not in missing)} without {" and ".join(missing)}: give all three')
    index, count = _number(which, index), _number(many, count)
    if not 0 < count <= _MOST:
        raise UsageError(f'{many} is {count}: a run has between 1 and {_MOST} processes')
    if index >= count:
        raise UsageError(f'{which} is {index} among {count} processes: they are numbered 0 to {count - 1}')
    return Start(coordinator=str(coordinator), index=index, count=count, origin=origin)


def _number(name: str, value: object) -> int:
    text = str(value)
    if not re.fullmatch(r'[0-9]{1,12}', text):
        raise UsageError(f'{name} is "{text[:40]}": a whole number, 0 or more, is wanted')
    return int(text)
