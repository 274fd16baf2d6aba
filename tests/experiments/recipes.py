"""What the sources say, typed by hand: the tables that tests/experiments/test_experiments_recipes.py holds the experiments to."""

from __future__ import annotations

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# facebookresearch/mae, PRETRAIN.md and main_pretrain.py: betas (0.9, 0.95), min_lr 0; the transform of main_pretrain.py.
MAE = {
    'optim.base_lr': 1.5e-4,
    'optim.lr': None,
    'optim.weight_decay': 0.05,
    'optim.b1': 0.9,
    'optim.b2': 0.95,
    'optim.min_lr': 0.0,
    'optim.layer_decay': 1.0,
    'optim.clip_norm': None,
    'task.model.mask_ratio': 0.75,
    'task.model.norm_pix_loss': True,
    'task.model.visible': 49,
    'task.model.decoder_width': 512,
    'task.model.decoder_depth': 8,
    'task.model.decoder_heads': 16,
    'task.model.encoder.width': 1024,
    'task.model.encoder.depth': 24,
    'task.model.encoder.heads': 16,
    'task.model.encoder.patch_size': 16,
    'task.model.encoder.mlp_ratio': 4.0,
    'task.model.encoder.norm_epsilon': 1e-6,
    'task.model.encoder.positions': 'sincos',
    'task.model.encoder.drop_path': 0.0,
    'data.image_size': 224,
    'data.crop_scale': (0.2, 1.0),
    'data.augment': 'crop_flip',
    'data.randaugment': 0.0,
    'data.random_erasing': 0.0,
    'data.mean': IMAGENET_MEAN,
    'data.std': IMAGENET_STD,
}
IMAGENET = MAE | {'data.batch_size': 64 * 8 * 8, 'epochs': 800, 'warmup_epochs': 40}
CFP = MAE | {'data.batch_size': 224 * 8, 'epochs': 800, 'warmup_epochs': 15}
DERETFOUND = MAE | {'data.batch_size': 224 * 8, 'epochs': 200, 'warmup_epochs': 20}

# rmaphoh/RETFound_MAE at f5ab012: README command, main_finetune.py; crop from timm's transforms_factory.
V1 = {
    'optim.base_lr': 5e-3,
    'optim.lr': None,
    'optim.weight_decay': 0.05,
    'optim.layer_decay': 0.65,
    'optim.b1': 0.9,
    'optim.b2': 0.999,
    'optim.min_lr': 1e-6,
    'optim.clip_norm': None,
    'epochs': 50,
    'warmup_epochs': 10,
    'best_by': 'AUROC',
    'task.mode': 'single',
    'task.adapt': 'full',
    'task.label_smoothing': 0.1,
    'task.model.drop_path': 0.2,
    'task.model.pool': 'mean',
    'task.model.norm_twice': False,
    'task.model.positions': 'learned',
    'task.model.width': 1024,
    'task.model.depth': 24,
    'task.model.heads': 16,
    'task.model.patch_size': 16,
    'data.batch_size': 16,
    'data.image_size': 224,
    'data.central_share': 224 / 256,
    'data.crop_scale': (0.08, 1.0),
    'data.randaugment': 9.0,
    'data.random_erasing': 0.25,
    'data.mean': IMAGENET_MEAN,
    'data.std': IMAGENET_STD,
}
# rmaphoh/RETFound at ae9a9ec: train.sh, main_finetune.py.
V2 = V1 | {'data.batch_size': 24, 'task.label_smoothing': 0.0, 'task.model.norm_twice': True, 'best_by': 'retfound_v2_score'}
DINOV2 = V2 | {
    'task.model.norm_twice': False,
    'task.model.pool': 'cls',
    'task.model.patch_size': 14,
    'task.model.layer_scale': 1e-5,
    'task.model.registers': 0,
    'task.model.cls_position': True,
}
# justinengelmann/RETFound_Green at bddfb9a: TokenReconstructionPretraining.ipynb, data.py.
GREEN = {
    'optim.lr': 5e-5,
    'optim.weight_decay': 1e-4,
    'optim.b1': 0.9,
    'optim.b2': 0.99,
    'optim.clip_norm': 0.1,
    'optim.min_lr': 5e-9,
    'optim.layer_decay': 1.0,
    'epochs': 120,
    'warmup_epochs': 10,
    'task.model.noise': 0.2,
    'task.model.most_blank': 1 / 3,
    'task.model.clean': 1,
    'task.model.projector': True,
    'task.model.encoder.width': 384,
    'task.model.encoder.depth': 12,
    'task.model.encoder.heads': 6,
    'task.model.encoder.patch_size': 14,
    'task.model.encoder.registers': 4,
    'task.model.encoder.positions': 'learned',
    'task.model.encoder.cls_position': False,
    'task.model.encoder.layer_scale': 1e-5,
    'task.model.encoder.pool': 'mean_normed',
    'task.model.encoder.compute_dtype': 'bfloat16',
    'data.batch_size': 128,
    'data.image_size': 392,
    'data.crop_scale': (0.7, 1.0),
    'data.mean': (0.5, 0.5, 0.5),
    'data.std': (0.5, 0.5, 0.5),
}

# facebookresearch/moco-v3 at 38aae44 and 02655ae: CONFIG.md (commands of ViT-Small), main_moco.py (defaults, transforms).
MOCO = {
    'data.batch_size': 4096,
    'data.image_size': 224,
    'data.mean': IMAGENET_MEAN,
    'data.std': IMAGENET_STD,
    'data.views.global_views': 2,
    'data.views.local_views': 0,
    'data.views.global_scale': (0.08, 1.0),
    'data.views.flip': 0.5,
    'data.views.jitter': (0.4, 0.4, 0.2, 0.1),
    'data.views.jitter_probability': 0.8,
    'data.views.grey': 0.2,
    'data.views.blur': (1.0, 0.1),
    'data.views.blur_sigma': (0.1, 2.0),
    'data.views.solarize': (0.0, 0.2),
    'optim.base_lr': 1.5e-4,
    'optim.lr': None,
    'optim.weight_decay': 0.1,
    'optim.b1': 0.9,
    'optim.b2': 0.999,
    'epochs': 300,
    'warmup_epochs': 40,
    'task.model.hidden': 4096,
    'task.model.out': 256,
    'task.model.temperature': 0.2,
    'task.model.momentum': 0.99,
    'task.model.frozen_patch_embed': True,
    'task.model.encoder.width': 384,
    'task.model.encoder.depth': 12,
    'task.model.encoder.patch_size': 16,
    'task.model.encoder.positions': 'sincos',
    'task.model.encoder.pool': 'cls',
    'task.model.encoder.norm_epsilon': 1e-6,
}
# google-research/simclr at 0075cc0: README (command of ImageNet); the paper's appendix A for the views.
SIMCLR = {
    'data.batch_size': 4096,
    'data.views.global_scale': (0.08, 1.0),
    'data.views.jitter': (0.8, 0.8, 0.8, 0.2),
    'data.views.jitter_probability': 0.8,
    'data.views.grey': 0.2,
    'data.views.blur': (0.5,),
    'data.views.blur_sigma': (0.1, 2.0),
    'data.views.solarize': (0.0,),
    'task.model.temperature': 0.1,
    'task.model.out': 128,
}
# facebookresearch/swav at 04b8f43: scripts/swav_400ep_pretrain.sh, src/multicropdataset.py.
SWAV = SIMCLR | {
    'data.views.global_scale': (0.14, 1.0),
    'data.views.local_views': 6,
    'data.views.local_size': 96,
    'data.views.local_scale': (0.05, 0.14),
    'data.views.local_blur': 0.5,
    'task.model.prototypes': 3000,
    'task.model.epsilon': 0.05,
    'task.model.iterations': 3,
}

TABLES = {
    'pretrain_mae:imagenet_vit_l': IMAGENET,
    'pretrain_mae:retfound_cfp': CFP,
    'pretrain_mae:retfound_oct': CFP | {'task.model.mask_ratio': 0.85, 'task.model.visible': 29},
    'pretrain_mae:deretfound_synthetic': DERETFOUND,
    'pretrain_mae:deretfound_real': DERETFOUND,
    'finetune:retfound_v1': V1,
    'finetune:retfound_v2': V2,
    'finetune:retfound_dinov2': DINOV2,
    'linear_probe:retfound_v2': V2 | {'task.adapt': 'head'},
    'pretrain_green:retfound_green': GREEN,
    'pretrain_ssl:mocov3': MOCO,
    'pretrain_ssl:simclr': SIMCLR,
    'pretrain_ssl:swav': SWAV,
}
# lr = base rate * images of a step / 256, as each source's code prints it.
PEAKS = {
    'pretrain_mae:imagenet_vit_l': 2.4e-3,
    'pretrain_mae:retfound_cfp': 1.05e-3,
    'finetune:retfound_v1': 3.125e-4,
    'finetune:retfound_v2': 4.6875e-4,
    'pretrain_green:retfound_green': 5e-5,
    'pretrain_ssl:mocov3': 2.4e-3,
}
# Millions, with five classes: printed by the run in RETFound's examples/RETFound_MESSIDOR2_demo.ipynb.
PARAMETERS = {'finetune:retfound_dinov2': 303.23}
