"""RETFound's tables on public data: eight datasets, diabetic retinopathy across datasets, shares of the labels, frozen features.

    retfound table retfound_internal --data DATA --weights RETFound=CFP --weights RETFound_OCT=OCT --weights mae_imagenet=MAE \\
      --workdir STUDY --run

DATA/NAME is each dataset as it is published (`retfound datasets --name NAME` says how to get it), best in RETFound's own splits: the
class folders train/, val/ and test/ that its authors give out are read and kept, and a verdict compares numbers only where the splits are
the published ones. CFP, OCT and MAE are files of weights (experiments/tables/_common.py).

Source: Zhou et al., Nature 2023, s41586-023-06555-x. Published numbers: retfound_jax/studies/published_retfound.py; those of the other
methods and of AUPRC are in figures and supplements that we could not read. Test images that the weights have seen are marked.
"""

from __future__ import annotations

import dataclasses

from experiments import finetune
from experiments.tables import _common
from retfound_jax.registry.checkpoints_known import EIGHT
from retfound_jax.studies.grid import Study
from retfound_jax.studies.rows import Judged

_DR = ('aptos2019', 'idrid', 'messidor2')
_AGAINST_RANDOM = Judged(reference='random', metrics=('AUROC', 'AUPRC'))


def retfound_internal() -> Study:
    """RETFound's internal evaluation: eight public datasets, the recipe of 2023, five seeds.

    Table: Zhou et al., figure 2 and its supplement. The best checkpoint by validation AUROC is tested, as there.
    Cost: 120 runs of ViT-L/16, 50 epochs each; reported for theirs: about 70 minutes for 1,000 images on one T4. Here: not yet measured.
    """
    return Study(
        name='internal',
        title='Internal evaluation on eight public datasets',
        paper='Zhou et al., Nature 2023, figure 2',
        data=_common.of_papers(*EIGHT),
        methods=_common.retfound(on=EIGHT),
        recipe=finetune.retfound_v1(),
        which='best',
        judged=_AGAINST_RANDOM,
    )


def retfound_internal_2025() -> Study:
    """The same by the recipe of 2025: batch 24, plain cross-entropy, the best checkpoint by the mean of F1, AUROC and kappa.

    Table: Zhou, Hou et al., Ophthalmology Science 2025, whose abstract gives numbers of two datasets and ranges. Here: not yet measured.
    """
    return dataclasses.replace(
        retfound_internal(),
        name='internal_2025',
        title='Internal evaluation on eight public datasets, recipe of 2025',
        paper='Zhou, Hou et al., Ophthalmology Science 2025, arXiv 2502.06289',
        recipe=finetune.retfound_v2(),
    )


def retfound_external() -> Study:
    """RETFound's external evaluation: trained on each dataset of diabetic retinopathy, tested on all of them.

    Table: Zhou et al., figure 2: the whole matrix of APTOS-2019, IDRiD and MESSIDOR-2, five grades in common. What the paper tests across
    its hospital and UK Biobank is not public. Published with a source: APTOS-2019 to IDRiD, a number that is probably a slip, and to
    MESSIDOR-2. The table's `internal` diagonal is there for comparison. Here: not yet measured.
    """
    return Study(
        name='external',
        title='External evaluation of grades of diabetic retinopathy',
        paper='Zhou et al., Nature 2023, figure 2',
        data=_common.of_papers(*_DR, common=_common.same_grades()),
        external=True,
        methods=_common.retfound(on=_DR),
        recipe=finetune.retfound_v1(),
        which='best',
        judged=_AGAINST_RANDOM,
    )


def label_efficiency() -> Study:
    """Label efficiency: 10 to 100 % of the labels, RETFound and ImageNet's masked autoencoder against random weights.

    Table: Zhou et al., figure 4, of other data: heart failure and infarction in a hospital's records that are not public. Here the same
    question of three public datasets: the shares, ours, are of the patients, drawn so that each class keeps its share; each seed draws
    anew. The table says how many labels each start needs for what random weights reach with all, and the gap of training to test.
    Cost: 270 runs. Here: not yet measured; the same on real data within an hour is experiments/tables/real.py.
    """
    names = ('aptos2019', 'messidor2', 'glaucoma_fundus')
    return Study(
        name='label_efficiency',
        title='Labels that pretraining saves',
        paper='Zhou et al., Nature 2023, figure 4, on other data',
        data=_common.of_papers(*names),
        methods=_common.retfound(on=names),
        fractions=(0.1, 0.2, 0.4, 0.6, 0.8, 1.0),
        recipe=finetune.retfound_v1(),
        which='best',
        judged=Judged(reference='random'),
    )


def linear_probe_knn() -> Study:
    """Frozen features of the same weights on the same eight datasets: a linear probe and 20 nearest neighbours.

    No number of RETFound's group could be read. The probe chooses its regularisation by validation; features of given weights have one
    result, so only random weights have five seeds. Here: not yet measured.
    """
    return Study(
        name='linear_probe_knn',
        title='Linear probe and nearest neighbours on eight public datasets',
        data=_common.of_papers(*EIGHT),
        methods=_common.retfound(on=EIGHT),
        adaptations=('probe', 'knn'),
        recipe=finetune.retfound_v1(),
        judged=Judged(reference='random'),
    )


def retfound_internal_phantom() -> Study:
    """The twin of retfound_internal on drawn photographs."""
    return _common.twin(retfound_internal())


def retfound_external_phantom() -> Study:
    """The twin of retfound_external on drawn photographs, judged by referable retinopathy, to which both have a label map."""
    return _common.twin(retfound_external())


def label_efficiency_phantom() -> Study:
    """The twin of label_efficiency on drawn photographs."""
    return _common.twin(label_efficiency(), fractions=(0.5, 1.0))


def linear_probe_knn_phantom() -> Study:
    """The twin of linear_probe_knn on drawn photographs."""
    return _common.twin(linear_probe_knn())
