"""Numbers of RETFound's own group: the paper of 2023 and the comparison with DINOv2 of 2025."""

from __future__ import annotations

from collections.abc import Iterator

from retfound_jax.studies.published import Published, PublishedSplit, Shape

NATURE = 'Zhou et al., Nature 2023, s41586-023-06555-x'
DINO = 'Zhou, Hou et al., Ophthalmology Science 2025, 10.1016/j.xops.2025.100923, arXiv 2502.06289'
URFOUND = 'Yu et al., UrFound, MICCAI 2024, Table 2'
VIT_L16 = Shape(width=1024, depth=24, patch=16, image_size=224)
CFP, OCT = ('RETFound_mae_natureCFP',), ('RETFound_mae_natureOCT',)
_SECOND = 'A second source prints the same.'

SPLITS = tuple(
    PublishedSplit(
        dataset=name, classes=classes, train=train, val=val, test=test, total=total, source=URFOUND, certainty='repository', note=note
    )
    for name, classes, train, val, test, total, note in (
        ('aptos2019', 5, 2048, 514, 1100, 3662, _SECOND),
        ('idrid', 5, 329, 84, 103, 516, _SECOND),
        ('messidor2', 5, 972, 246, 526, 1744, 'The table prints 264 for validation; its total, and a second source, say 246.'),
        ('papila', 3, 311, 79, 98, 488, 'Sources differ: 311 and 79, or 313 and 77.'),
        ('papila', 3, 313, 77, 98, 488, 'Sources differ: 311 and 79, or 313 and 77.'),
        ('glaucoma_fundus', 3, 861, 218, 465, 1544, _SECOND),
        ('jsiec', 39, 534, 150, 313, 997, _SECOND),
        ('retina', 4, 336, 84, 181, 601, _SECOND),
        ('octid', 5, 317, 80, 175, 572, _SECOND),
    )
)


def _nature(study: str, train_on: str, test_on: str, value: float, interval: tuple[float | None, ...] = (None, None), **more) -> Published:
    given = {'method': 'RETFound', 'adaptation': 'finetune', 'metric': 'AUROC', 'shape': VIT_L16, 'weights': CFP} | more
    fixed = {'source': NATURE, 'certainty': 'secondary', 'low': interval[0], 'high': interval[1]}
    return Published(study=study, train_on=train_on, test_on=test_on, value=value, **fixed, **given)


def _dino(study: str, data: str, *, method: str, value: float | None = None, **more) -> Published:
    fixed = {'adaptation': 'finetune', 'metric': 'AUROC', 'source': DINO, 'certainty': 'abstract', 'shape': _SHAPES.get(method)}
    weights = CFP if method == 'RETFound' else ()
    return Published(study=study, train_on=data, test_on=data, method=method, value=value, weights=weights, **fixed, **more)


_SHAPES = {
    'RETFound': VIT_L16,
    'DINOv2-L': Shape(width=1024, depth=24, patch=14, image_size=224),
    'DINOv2-B': Shape(width=768, depth=12, patch=14, image_size=224),
}
_SAME = (
    'The number and its interval are those printed for training and testing on IDRiD, so one of the two is probably a slip; '
    'which one is not resolved'
)
_YEARS = 'within three years'


def _nature_numbers() -> Iterator[Published]:
    yield _nature('internal', 'aptos2019', 'aptos2019', 0.943, (0.941, 0.944))
    yield _nature('internal', 'idrid', 'idrid', 0.822, (0.815, 0.829))
    yield _nature('internal', 'messidor2', 'messidor2', 0.884)
    yield _nature('external', 'aptos2019', 'idrid', 0.822, (0.815, 0.829), doubt=_SAME)
    yield _nature('external', 'aptos2019', 'messidor2', 0.738, (0.729, 0.747))
    for weights, modality, value in ((CFP, 'CFP', 0.862), (OCT, 'OCT', 0.799)):
        target = f'wet AMD of the fellow eye within one year, {modality}'
        yield _nature('systemic', 'alzeye', 'alzeye', value, target=target, weights=weights)
    yield _nature('systemic', 'alzeye', 'alzeye', 0.737, target=f'myocardial infarction {_YEARS}, CFP')
    for target, value in (('heart failure', 0.794), ('ischaemic stroke', 0.754), ("Parkinson's disease", 0.669)):
        yield _nature('systemic', 'alzeye', 'alzeye', value, target=f'{target} {_YEARS}', note='The modality is not quoted.', weights=())
    for modality, value, weights in (('CFP', 0.16, CFP), ('OCT', 0.19, OCT)):
        target = f'ischaemic stroke {_YEARS}, {modality}'
        yield _nature('systemic', 'alzeye', 'uk_biobank', value, metric='fall of AUROC from internal', target=target, weights=weights)
    for target in ('heart failure', 'myocardial infarction'):
        metric, note = 'share of labels that beats all comparators', 'Comparators with all labels or with as many: not quoted.'
        yield _nature('label_efficiency', 'alzeye', 'alzeye', 0.10, metric=metric, target=f'{target} {_YEARS}', note=note)
    metric, note = 'share of training time saved', 'To the best checkpoint, against the strongest comparator.'
    yield _nature('adaptation_speed', 'alzeye', 'alzeye', 0.80, metric=metric, target=f'myocardial infarction {_YEARS}', note=note)
    yield _nature('adaptation_speed', 'messidor2', 'messidor2', 0.46, metric=metric, note=note)
    age = {'method': 'logistic regression on age alone', 'adaptation': 'supervised', 'shape': None, 'weights': ()}
    note = 'At the largest gap of age between cases and controls.'
    yield _nature('age_shift', 'alzeye', 'alzeye', 0.63, target=f'myocardial infarction {_YEARS}', note=note, **age)


def _dino_numbers() -> Iterator[Published]:
    three = {'data': 'aptos2019, idrid, messidor2', 'note': 'A range over the three datasets; which is which is not said.'}
    yield _dino('internal', method='RETFound', low=0.823, high=0.944, **three)
    yield _dino('internal', method='DINOv2-L', low=0.850, high=0.952, **three | {'note': three['note'] + ' P <= .007 against RETFound.'})
    yield _dino('internal', 'retina', method='RETFound', value=0.846)
    yield _dino('internal', 'retina', method='DINOv2-L', value=0.892)
    yield _dino('internal', 'glaucoma_fundus', method='RETFound', value=0.940)
    yield _dino('internal', 'glaucoma_fundus', method='DINOv2-B', value=0.958)
    systemic = {'target': 'heart failure, myocardial infarction, stroke', 'note': 'A range over the three diseases.'}
    yield _dino('systemic', 'alzeye', method='RETFound', low=0.732, high=0.796, **systemic)
    note = systemic['note'] + ' Of which size is not quoted.'
    yield _dino('systemic', 'alzeye', method='DINOv2', low=0.663, high=0.771, **systemic | {'note': note})


NUMBERS = (*_nature_numbers(), *_dino_numbers())
