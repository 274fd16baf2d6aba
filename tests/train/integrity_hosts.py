"""One of several processes whose devices hold copies; run by test_train_integrity.py.

    python integrity_hosts.py COORDINATOR COUNT INDEX

The last process flips a bit of its own copy at step 3. Each prints what it is told after step 2 and after step 4, as JSON.
"""

from __future__ import annotations

import json
import sys

import jax


def main(coordinator: str, count: int, index: int) -> None:
    """Four steps, copies compared at every second one."""
    jax.config.update('jax_cpu_collectives_implementation', 'gloo')
    jax.distributed.initialize(coordinator, count, index, initialization_timeout=60)
    import bad_number_cases
    from integrity_cases import flipped, guarded, told, with_leaf

    from retfound_jax.train.config import FaultConfig
    from retfound_jax.train.program import make_program

    def wrong(leaf: jax.Array) -> jax.Array:
        return flipped(leaf, device=jax.local_devices()[0], place=0, bit=3)

    made = make_program(bad_number_cases.config(FaultConfig()))
    rows = slice(8 // count * index, 8 // count * (index + 1))
    check, state, said = guarded(made, repeat_every=2, compare_replicas_every=2), made.init_state(), []
    for number in range(1, 5):
        local = {name: value[rows] for name, value in bad_number_cases.batch(number).items()}
        if number == 3 and index == count - 1:
            state = with_leaf(state, 'params.head.bias', wrong)
        state, _ = check(number, state, made.put(local))
        if number % 2 == 0:
            said.append(told(check))
    print(json.dumps(said), flush=True)
    jax.distributed.shutdown()


if __name__ == '__main__':
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
