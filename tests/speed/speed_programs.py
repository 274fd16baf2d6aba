"""Programs of eight host devices, compiled in a process of their own: the number of devices is fixed when JAX starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def on_eight(source: str, *arguments: str, devices: int = 8) -> Any:
    """Runs Python and returns what its last line of output says, as JSON."""
    environment = os.environ | {'XLA_FLAGS': f'--xla_force_host_platform_device_count={devices}', 'JAX_PLATFORMS': 'cpu'}
    call = [sys.executable, '-c', source, *arguments]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])
