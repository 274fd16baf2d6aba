"""What a training step costs: counted (FLOPs, bytes), measured (beside a peer or a limit, in one run), modelled for absent machines."""
