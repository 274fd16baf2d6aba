"""A tiny TFDS dataset; TFDS wants its builder in a package."""
