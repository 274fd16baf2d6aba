"""The field's public datasets and checkpoints: what each is, how its folder is laid out, what it was made from. No jax here."""
