"""One file a study; each function returns a TrainConfig and its docstring is the lab record."""
