"""What a training step costs: counted (FLOPs, bytes), measured (beside a peer or a limit, in the same run), and modelled for pods that are not there."""
