"""MedMNIST's benchmark of the two retinal sets, and KeepFIT's table."""

from __future__ import annotations

from collections.abc import Iterator

from retfound_jax.studies.published import Published, PublishedSplit, Shape

MEDMNIST = 'Yang et al., MedMNIST v2, Sci Data 2023'
KEEPFIT = 'Wu et al., MM-Retinal and KeepFIT, MICCAI 2024, figures of the repository'

SPLITS = tuple(
    PublishedSplit(dataset=name, source=MEDMNIST, certainty='repository', **sizes)
    for name, sizes in (
        ('retinamnist', {'classes': 5, 'train': 1080, 'val': 120, 'test': 400, 'total': 1600, 'note': 'Of DeepDRiD.'}),
        ('octmnist', {'classes': 4, 'train': 97477, 'val': 10832, 'test': 1000, 'total': 109309}),
    )
)

# AUROC and accuracy, of OCTMNIST and of RetinaMNIST
_MEDMNIST = (
    ('ResNet-18 (28)', 0.943, 0.743, 0.717, 0.524),
    ('ResNet-18 (224)', 0.958, 0.763, 0.710, 0.493),
    ('ResNet-50 (28)', 0.952, 0.762, 0.726, 0.528),
    ('ResNet-50 (224)', 0.958, 0.776, 0.716, 0.511),
    ('auto-sklearn', 0.887, 0.601, 0.690, 0.515),
    ('AutoKeras', 0.955, 0.763, 0.719, 0.503),
    ('Google AutoML Vision', 0.963, 0.771, 0.750, 0.531),
)
_UPSAMPLED = '(224) is the 28 px image enlarged, not MedMNIST+ at 224 px.'

_KEEPFIT_SETS = (
    ('refuge', 'glaucoma', 'balanced_accuracy'),
    ('fives', 'macro', 'balanced_accuracy'),
    ('odir200x3', 'macro', 'balanced_accuracy'),
    ('taop', 'macro', 'balanced_accuracy'),
    ('amd', 'AMD', 'AUROC'),
    ('amd', 'AMD', 'F1'),
    ('mean of the five sets', 'macro', 'average as printed'),
)
_KEEPFIT = (
    ('RETFound', 904_170, (0.809, 0.765, 0.907, 0.697, 0.945, 0.805, 0.821)),
    ('FLAIR', 278_348, (0.831, 0.835, 0.875, 0.468, 0.963, 0.960, 0.822)),
    ('FLAIR + SynFundus', 1_278_366, (0.847, 0.842, 0.890, 0.549, 0.952, 0.953, 0.839)),
    ('KeepFIT, FLAIR + MM-Retinal', 280_517, (0.861, 0.851, 0.915, 0.684, 0.971, 0.966, 0.875)),
)
_ZERO_SHOT_SETS = (('refuge', 'glaucoma', 'AUROC'), ('fives', 'macro', 'balanced_accuracy'), ('odir200x3', 'macro', 'balanced_accuracy'))
_ZERO_SHOT = (('FLAIR', (0.926, 0.670, 0.403)), ('KeepFIT, FLAIR + MM-Retinal', (0.941, 0.731, 0.812)))


def _medmnist_numbers() -> Iterator[Published]:
    for method, *values in _MEDMNIST:
        cells = (('octmnist', 'AUROC'), ('octmnist', 'accuracy'), ('retinamnist', 'AUROC'), ('retinamnist', 'accuracy'))
        for (dataset, metric), value in zip(cells, values, strict=True):
            yield Published(
                study='medmnist',
                train_on=dataset,
                test_on=dataset,
                method=method,
                adaptation='supervised',
                metric=metric,
                value=value,
                source=MEDMNIST,
                certainty='repository',
                note=_UPSAMPLED if '(224)' in method else '',
            )


def _keepfit(dataset: str, target: str, metric: str, value: float, **more) -> Published:
    return Published(
        study='keepfit',
        train_on=dataset if more['adaptation'] != 'zero-shot' else '',
        test_on=dataset,
        metric=metric,
        value=value,
        target=target,
        source=KEEPFIT,
        certainty='repository',
        **more,
    )


def _keepfit_numbers() -> Iterator[Published]:
    retfound = {'shape': Shape(width=1024, depth=24, patch=16, image_size=224), 'weights': ('RETFound_mae_natureCFP',)}
    for method, images, values in _KEEPFIT:
        more = retfound if method == 'RETFound' else {}
        for (dataset, target, metric), value in zip(_KEEPFIT_SETS, values, strict=True):
            yield _keepfit(
                dataset, target, metric, value, method=method, adaptation='', note=f'Pretrained on {images:,} images or pairs.', **more
            )
    for method, values in _ZERO_SHOT:
        for (dataset, target, metric), value in zip(_ZERO_SHOT_SETS, values, strict=True):
            yield _keepfit(dataset, target, metric, value, method=method, adaptation='zero-shot')


NUMBERS = (*_medmnist_numbers(), *_keepfit_numbers())
