"""How training goes: the configuration of a run, its state, its step, its checkpoints, and the only loop in the project."""
