"""Other people's weights, in and out: MAE, RETFound, DINOv2, DINOv3, timm and Hugging Face.

Whatever a file is called and however its tensors are named, they are first brought to timm's names (`layouts`, `hf_names`), then to
ours with every shape asserted (`timm_names`); on the way out the same tables are walked backwards (`write`). `Weights` is what lies
between: the configuration of a network, its arrays by our names, and what its inputs and outputs mean.
"""
