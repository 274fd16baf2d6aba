"""RETFound-Green's probe tables: frozen features of three models on BRSET, IDRiD and a set of retinopathy of prematurity (ROP)."""

from __future__ import annotations

from collections.abc import Iterator

from retfound_jax.studies.published import Published, Shape

SOURCE = 'Engelmann and Bernabeu, Nat Commun 2025, notebooks of the repository'
ADAPTATION, METRIC = 'green_probe', 'median AUROC'  # evals.green_probe: over 100 bootstraps of the test rows
METHODS = ('RETFound-MEH', 'DERETFound', 'RETFound-Green')
_SHAPES = {
    'RETFound-MEH': Shape(width=1024, depth=24, patch=16, image_size=224),
    'DERETFound': Shape(width=1024, depth=24, patch=16, image_size=224),
    'RETFound-Green': Shape(width=384, depth=12, patch=14, image_size=392),
}
_WEIGHTS = {'RETFound-MEH': ('RETFound_mae_meh',), 'DERETFound': ('DERETFound',), 'RETFound-Green': ('RETFound-Green',)}

_DR, _DME = 'dr_grade', 'dme_risk'  # labels as the registry has them, with their classes
_GRADES = ('no_dr', 'mild', 'moderate', 'severe', 'proliferative')
_MODERATE, _ANY = '>=moderate', '>=mild'  # printed as "no or mild against the rest" and "any DR"

# dataset, label, targets; then one row of numbers a method, in the order of METHODS
_TABLE = (
    ('brset', 'macula', ('macro',), (0.8442,), (0.8551,), (0.8922,)),
    ('brset', 'optic_disc', ('macro',), (0.8487,), (0.8873,), (0.8561,)),
    ('brset', 'vessels', ('macro',), (0.7990,), (0.7924,), (0.8296,)),
    ('brset', 'diabetic_retinopathy', ('macro',), (0.9205,), (0.9379,), (0.9624,)),
    ('brset', 'amd', ('macro',), (0.9079,), (0.9155,), (0.9482,)),
    ('brset', 'macular_edema', ('macro',), (0.9201,), (0.9382,), (0.9751,)),
    ('brset', 'quality', ('macro',), (0.8784,), (0.8962,), (0.8855,)),
    ('brset', 'insulin', ('macro',), (0.7959,), (0.8671,), (0.8306,)),
    ('brset', 'diabetes', ('macro',), (0.8575,), (0.8624,), (0.8503,)),
    (
        *('idrid', _DR, _GRADES),
        (0.8622, 0.5361, 0.7631, 0.7982, 0.8313),
        (0.8661, 0.5709, 0.6566, 0.8168, 0.9047),
        (0.8900, 0.5609, 0.7671, 0.8197, 0.8833),
    ),
    ('idrid', _DME, ('no_risk', 'low', 'high'), (0.8834, 0.7117, 0.8888), (0.8781, 0.7583, 0.8706), (0.9131, 0.7278, 0.8772)),
    ('idrid', _DR, (_MODERATE, _ANY), (0.9240, 0.8687), (0.9046, 0.8721), (0.9160, 0.9017)),
    ('idrid', _DME, ('>=low',), (0.8922,), (0.8737,), (0.9168,)),
    (
        *('brset', _DR, _GRADES),
        (0.9128, 0.7933, 0.8276, 0.9067, 0.9854),
        (0.9270, 0.8053, 0.8620, 0.9172, 0.9785),
        (0.9491, 0.8644, 0.8903, 0.9189, 0.9773),
    ),
    ('brset', _DR, (_MODERATE, _ANY), (0.9409, 0.9178), (0.9494, 0.9409), (0.9635, 0.9617)),
    ('rop', 'rop', ('normal', 'laser scars', 'ROP'), (0.9952, 0.9991, 0.9818), (0.9949, 0.9998, 0.9920), (0.9978, 1.0, 0.9942)),
    ('rop', 'rop_stage', ('1', '2', '3'), (0.8296, 0.7886, 0.8634), (0.8752, 0.8879, 0.9445), (0.8915, 0.8920, 0.9699)),
)
_TRANSPORT = ((_MODERATE, _ANY), (0.9159, 0.8962), (0.9492, 0.9194), (0.9418, 0.9198))
_WINS = (('brset', (0, 4, 5)), ('idrid', (1, 2, 4)), ('rop', (0, 0, 8)))
_DINOV2 = (('diabetic_retinopathy', 0.9416), ('amd', 0.9332), ('macular_edema', 0.9692))


def _one(train_on: str, test_on: str, method: str, value: float, **more) -> Published:
    given = {'metric': METRIC, 'shape': _SHAPES.get(method), 'weights': _WEIGHTS.get(method, ())} | more
    where = {'study': 'green_probe', 'train_on': train_on, 'test_on': test_on, 'method': method, 'adaptation': ADAPTATION}
    return Published(**where, value=value, source=SOURCE, certainty='repository', **given)


def _numbers() -> Iterator[Published]:
    for dataset, label, targets, *of_method in _TABLE:
        for t, target in enumerate(targets):
            for method, values in zip(METHODS, of_method, strict=True):
                yield _one(dataset, dataset, method, values[t], label=label, target=target)
    targets, *of_method = _TRANSPORT
    for t, target in enumerate(targets):
        for method, values in zip(METHODS, of_method, strict=True):
            yield _one('brset', 'idrid', method, values[t], label=_DR, target=target, note="Of the notebook's second block.")
    for dataset, counts in _WINS:
        for method, count in zip(METHODS, counts, strict=True):
            yield _one(dataset, dataset, method, count, target='all tasks', metric='significant wins')
    for label, value in _DINOV2:
        note = 'At 392 px; of which size is not quoted.'
        yield _one('brset', 'brset', 'DINOv2 without retinal training', value, label=label, note=note)


NUMBERS = tuple(_numbers())
