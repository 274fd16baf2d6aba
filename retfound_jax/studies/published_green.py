"""RETFound-Green's probe tables: frozen features of three models on BRSET, IDRiD and a set of retinopathy of prematurity (ROP)."""

from __future__ import annotations

from collections.abc import Iterator

from retfound_jax.studies.published import Published, Shape

SOURCE = 'Engelmann and Bernabeu, Nat Commun 2025, notebooks of the repository'
PROTOCOL = 'green'  # evals.green_probe: median AUROC over 100 bootstraps of the test rows
METHODS = ('RETFound-MEH', 'DERETFound', 'RETFound-Green')
_SHAPES = {
    'RETFound-MEH': Shape(width=1024, depth=24, patch=16, image_size=224),
    'DERETFound': Shape(width=1024, depth=24, patch=16, image_size=224),
    'RETFound-Green': Shape(width=384, depth=12, patch=14, image_size=392),
}
_WEIGHTS = {'RETFound-MEH': ('RETFound_mae_meh',), 'DERETFound': ('DERETFound',), 'RETFound-Green': ('RETFound-Green',)}

# dataset, what is told apart, one row of numbers a method; several targets share a line where the notebook prints them so
_TABLE = (
    ('brset', ('macula',), (0.8442,), (0.8551,), (0.8922,)),
    ('brset', ('optic disc',), (0.8487,), (0.8873,), (0.8561,)),
    ('brset', ('vessels',), (0.7990,), (0.7924,), (0.8296,)),
    ('brset', ('DR',), (0.9205,), (0.9379,), (0.9624,)),
    ('brset', ('AMD',), (0.9079,), (0.9155,), (0.9482,)),
    ('brset', ('macular edema',), (0.9201,), (0.9382,), (0.9751,)),
    ('brset', ('quality',), (0.8784,), (0.8962,), (0.8855,)),
    ('brset', ('insulin',), (0.7959,), (0.8671,), (0.8306,)),
    ('brset', ('diabetes',), (0.8575,), (0.8624,), (0.8503,)),
    (
        'idrid',
        ('DR grade 0', 'DR grade 1', 'DR grade 2', 'DR grade 3', 'DR grade 4'),
        (0.8622, 0.5361, 0.7631, 0.7982, 0.8313),
        (0.8661, 0.5709, 0.6566, 0.8168, 0.9047),
        (0.8900, 0.5609, 0.7671, 0.8197, 0.8833),
    ),
    (
        'idrid',
        ('macular edema grade 0', 'macular edema grade 1', 'macular edema grade 2'),
        (0.8834, 0.7117, 0.8888),
        (0.8781, 0.7583, 0.8706),
        (0.9131, 0.7278, 0.8772),
    ),
    (
        'idrid',
        ('no or mild DR against the rest', 'any DR', 'any macular edema'),
        (0.9240, 0.8687, 0.8922),
        (0.9046, 0.8721, 0.8737),
        (0.9160, 0.9017, 0.9168),
    ),
    (
        'brset',
        ('DR grade 0', 'DR grade 1', 'DR grade 2', 'DR grade 3', 'DR grade 4'),
        (0.9128, 0.7933, 0.8276, 0.9067, 0.9854),
        (0.9270, 0.8053, 0.8620, 0.9172, 0.9785),
        (0.9491, 0.8644, 0.8903, 0.9189, 0.9773),
    ),
    ('brset', ('no or mild DR against the rest', 'any DR'), (0.9409, 0.9178), (0.9494, 0.9409), (0.9635, 0.9617)),
    ('rop', ('normal', 'laser scars', 'ROP'), (0.9952, 0.9991, 0.9818), (0.9949, 0.9998, 0.9920), (0.9978, 1.0, 0.9942)),
    ('rop', ('ROP stage 1', 'ROP stage 2', 'ROP stage 3'), (0.8296, 0.7886, 0.8634), (0.8752, 0.8879, 0.9445), (0.8915, 0.8920, 0.9699)),
)
_TRANSPORT = (('no or mild DR against the rest', 'any DR'), (0.9159, 0.8962), (0.9492, 0.9194), (0.9418, 0.9198))
_WINS = (('brset', (0, 4, 5)), ('idrid', (1, 2, 4)), ('rop', (0, 0, 8)))
_DINOV2 = (('DR', 0.9416), ('AMD', 0.9332), ('macular edema', 0.9692))


def _one(train_on: str, test_on: str, target: str, method: str, value: float, **more) -> Published:
    given = {'metric': 'AUROC', 'shape': _SHAPES.get(method), 'weights': _WEIGHTS.get(method, ())} | more
    where = {'study': 'green_probe', 'train_on': train_on, 'test_on': test_on, 'target': target, 'method': method, 'adaptation': 'probe'}
    return Published(**where, value=value, source=SOURCE, certainty='repository', protocol=PROTOCOL, **given)


def _numbers() -> Iterator[Published]:
    for dataset, targets, *of_method in _TABLE:
        for t, target in enumerate(targets):
            for method, values in zip(METHODS, of_method, strict=True):
                yield _one(dataset, dataset, target, method, values[t])
    targets, *of_method = _TRANSPORT
    for t, target in enumerate(targets):
        for method, values in zip(METHODS, of_method, strict=True):
            yield _one('brset', 'idrid', target, method, values[t], note="Of the notebook's second block.")
    for dataset, counts in _WINS:
        for method, count in zip(METHODS, counts, strict=True):
            yield _one(dataset, dataset, 'all tasks', method, count, metric='significant wins')
    for target, value in _DINOV2:
        yield _one('brset', 'brset', target, 'DINOv2 without retinal training', value, note='At 392 px; of which size is not quoted.')


NUMBERS = tuple(_numbers())
