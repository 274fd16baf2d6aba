"""What each public checkpoint was pretrained and tested on, as far as somebody says so who could be read.

Names of datasets are the registry's where it has the dataset, else the field's in lower case. What a source does not name is left out
and the list marked as not whole: a reader then gets 'unknown', which is not 'clean'.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

Certainty = Literal['repository', 'paper', 'secondary', 'abstract']
NATURAL = frozenset({'imagenet1k', 'imagenet21k', 'lvd142m'})  # no eyes


@dataclasses.dataclass(frozen=True)
class Seen:
    """A dataset that a checkpoint was pretrained on, and how much of it where that is said."""

    dataset: str
    part: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A public checkpoint and its history."""

    name: str
    pretrained_on: tuple[Seen, ...]
    whole: bool  # the list above is all there was
    evaluated_on: tuple[str, ...]  # by those who made it; not contamination, but their choices were made with these in view
    source: str
    certainty: Certainty
    rests_on: str = ''  # the checkpoint that it began with or learned from, whose history is therefore its own
    with_labels: bool = False  # labels or captions of the images were learned, too
    also: tuple[str, ...] = ()  # other names

EIGHT = ('aptos2019', 'idrid', 'messidor2', 'papila', 'glaucoma_fundus', 'jsiec', 'retina', 'octid')
_SEVEN = EIGHT[:-1]
_RETFOUND = 'Zhou et al., Nature 2023; counts as an independent review quotes its full text'
_COHORTS = 'Zhou et al., Nature Communications 2026, abstract: two cohorts of one site each'
_FLAIR = 'github.com/jusiro/FLAIR, main_pretrain.py and local_data/prepare_partitions.py at d6652d5'
_FLAIR_OTHERS = ('rfmid', 'den', 'lag', 'paraguay', 'stare', 'aria', 'agar300', 'fund_oct', 'diaretdb1', 'drions_db', 'drishti_gs1',
                 'e_ophtha', 'g1020', 'hrf', 'origa', 'roc', 'ddr', 'airogs', 'sustech_sysu', 'jichi', 'chaksu', 'dr1_2', 'scardat')
_URFOUND = 'UrFound (MICCAI 2024), Table 1, in github.com/yukkai/UrFound'
_URFOUND_OTHERS = ('rfmid', 'eyenet', 'lag', 'paraguay', 'stare', 'aria', 'agar300', 'fund_oct', 'drions_db', 'drishti_gs1', 'e_ophtha',
                   'g1020', 'hrf', 'origa', 'roc', 'ddr', 'sustech_sysu', 'jichi', 'chaksu', 'dr1_2', 'scardat', 'acrima')

KNOWN: tuple[Checkpoint, ...] = (
    Checkpoint(
        name='RETFound_mae_natureCFP', pretrained_on=(Seen('meh_midas', '815,468 CFP'), Seen('eyepacs', '88,702 CFP')), whole=True,
        rests_on='mae_imagenet', evaluated_on=_SEVEN, source=_RETFOUND, certainty='secondary', also=('RETFound_cfp_weights',),
    ),
    Checkpoint(
        name='RETFound_mae_natureOCT', whole=True, rests_on='mae_imagenet', evaluated_on=('octid',),
        pretrained_on=(Seen('meh_midas_oct', 'about 627,133 B-scans'), Seen('kermany_oct2017', 'about 109,309 B-scans')),
        source=f'{_RETFOUND}, and the share of public images', certainty='secondary', also=('RETFound_oct_weights',),
    ),
    *(
        Checkpoint(
            name=f'RETFound_{method}_{site}', pretrained_on=(Seen(cohort, '904,170 CFP'),), whole=True, rests_on=start,
            evaluated_on=_SEVEN, source=_COHORTS, certainty='abstract',
        )
        for method, start in (('mae', 'mae_imagenet'), ('dinov2', 'dinov2_lvd142m'))
        for site, cohort in (('meh', 'meh_alzeye'), ('shanghai', 'shanghai_diabetes_prevention'))
    ),
    Checkpoint(
        name='RETFound-Green', pretrained_on=(Seen('airogs', 'a drawn part'), Seen('ddr'), Seen('odir5k')), whole=True,
        rests_on='dinov2_lvd142m', evaluated_on=('brset', 'idrid', 'rop'), certainty='repository',
        source='github.com/justinengelmann/RETFound_Green, select_image_subset.py: 75,000 photographs of three sets',
    ),
    Checkpoint(
        name='DERETFound', pretrained_on=(), whole=False, rests_on='mae_imagenet', certainty='repository', also=('RETFound-DE',),
        evaluated_on=('areds', 'aptos2019', 'idrid', 'messidor2', 'glaucoma_fundus', 'origa', 'papila', 'jsiec', 'retina'),
        source='github.com/Jonlysun/DERETFound: about 150,000 real photographs and a million made by a model of such, without their names',
    ),
    Checkpoint(
        name='VisionFM', pretrained_on=(), whole=False, evaluated_on=(*EIGHT, 'drive'), certainty='repository',
        source='github.com/ABILab-CUHK/VisionFM: 3.4 million images, public ones among them, without their names',
    ),
    Checkpoint(
        name='UrFound', whole=True, rests_on='mae_imagenet', evaluated_on=EIGHT, source=_URFOUND, certainty='repository',
        pretrained_on=(Seen('kermany_oct2017', '83,484 B-scans'), Seen('eyepacs', '35,126 CFP'), Seen('odir5k', '10,846 CFP'),
                       Seen('deepdrid', '2,000 CFP'), *map(Seen, _URFOUND_OTHERS)),
    ),
    Checkpoint(
        name='FLAIR', whole=True, rests_on='imagenet1k_supervised', source=_FLAIR, certainty='repository', with_labels=True,
        evaluated_on=('messidor2', 'jsiec', 'odir5k', 'fives', 'refuge', 'acrima', 'deepdrid', 'mmac'),
        pretrained_on=(
            Seen('eyepacs'), Seen('idrid', 'the training part'), Seen('jsiec', 'without three classes'), Seen('papila'),
            Seen('odir5k', 'without cataract, myopia and 200 normal patients'), Seen('aptos2019'), Seen('brset'), Seen('retina'),
            *map(Seen, _FLAIR_OTHERS),
        ),
    ),
    Checkpoint(
        name='RetiZero', pretrained_on=(), whole=False, rests_on='RETFound_mae_natureCFP', evaluated_on=(), certainty='secondary',
        with_labels=True,
        source='arXiv 2406.09317: 341,896 photographs of public sets, literature and the web; a low-rank change of RETFound',
    ),
    Checkpoint(
        name='mae_imagenet', pretrained_on=(Seen('imagenet1k'),), whole=True, evaluated_on=('imagenet1k',),
        source='He et al., CVPR 2022', certainty='paper', also=('SSL-ImageNet', 'mae_pretrain_vit_large', 'mae_pretrain_vit_base'),
    ),
    Checkpoint(
        name='imagenet1k_supervised', pretrained_on=(Seen('imagenet1k'),), whole=True, evaluated_on=('imagenet1k',), with_labels=True,
        source='torchvision, as FLAIR\'s code asks for it', certainty='repository',
    ),
    Checkpoint(
        name='imagenet21k_supervised', pretrained_on=(Seen('imagenet21k', '14 million images'),), whole=True, evaluated_on=('imagenet1k',),
        source='Zhou et al., Nature 2023, as SL-ImageNet', certainty='secondary', with_labels=True, also=('SL-ImageNet',),
    ),
    Checkpoint(
        name='dinov2_lvd142m', pretrained_on=(Seen('lvd142m', '142 million images'),), whole=False, evaluated_on=('imagenet1k',),
        source='Oquab et al., 2023: images of the web that resemble public sets of natural images; the list is not published',
        certainty='paper', also=('DINOv2', 'vit_small_patch14_dinov2', 'vit_base_patch14_dinov2', 'vit_large_patch14_dinov2'),
    ),
    Checkpoint(
        name='random', pretrained_on=(), whole=True, evaluated_on=(), source='weights before any training', certainty='paper',
        also=('scratch',),
    ),
)
