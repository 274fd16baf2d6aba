"""Networks in Flax NNX: layers, ViT, MAE, the classifier, and how an encoder moves from one to the other.

A model holds `nnx.Param` arrays and nothing else: randomness comes as an explicit `key`, and None means deterministic.
Parameter names, flattened, are those of timm and of the MAE checkpoints with `kernel` and `scale` for `weight`
('encoder.blocks.attn.qkv.kernel'); a scanned stack has one array for all its blocks with a leading axis [depth].
"""
