"""The front door for notebooks: `retfound_jax.load(path)` gives a `Model` that predicts, embeds and shows attention; numpy in and out."""
