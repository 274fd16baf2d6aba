"""DRIVE and CHASE_DB1: few photographs with masks of their vessels by two observers, and no label of the whole image."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from PIL import Image

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File
from retfound_jax.registry.draw import Photograph, photograph, seed_of, write_image

_DRIVE_PARTS = {'training': 'train', 'test': 'test'}
# Structure to folder and to the end of the name; the manual masks of the test part are not in all archives.
_DRIVE_MASKS = {'vessels': ('1st_manual', '{}_manual1.gif'), 'vessels_second': ('2nd_manual', '{}_manual2.gif'),
                'field_of_view': ('mask', '{}_{}_mask.gif')}
_CHASE_IMAGE = re.compile(r'Image_(\d{2})([LR])\.jpg', re.ASCII)
_CHASE_MASKS = {'vessels': '_1stHO.png', 'vessels_second': '_2ndHO.png'}


def _read_drive(root: Path) -> list[Example]:
    needed = [f'{part}/images' for part in _DRIVE_PARTS] + ['training/1st_manual', 'training/mask']
    base = folders.base_of(root, needed, name='drive')
    examples = []
    for part, split in _DRIVE_PARTS.items():
        for name in folders.pictures(base / part / 'images'):
            number, _, rest = Path(name).stem.partition('_')
            if not number.isdigit() or rest != part:
                raise UserError(f'{base / part / "images" / name} must be called NUMBER_{part}.tif; remove it, or unpack drive again')
            masks = {}
            for structure, (folder, pattern) in _DRIVE_MASKS.items():
                if (base / part / folder).is_dir():
                    masks[structure] = _mask(root, base / part / folder / pattern.format(number, part), name='drive')
            path = base / part / 'images' / name
            examples.append(Example(key=folders.safe_key(Path(name).stem), file=path.relative_to(root).as_posix(), labels={}, split=split,
                                    country='Netherlands', masks=masks))
    return examples


def _read_chase(root: Path) -> list[Example]:
    base = folders.base_of(root, ['Image_01L.jpg'], name='chase_db1')
    examples = []
    for name in folders.pictures(base):
        match = _CHASE_IMAGE.fullmatch(name)
        if not match and Path(name).suffix.lower() != '.png':
            raise UserError(f'{base / name} is no image of chase_db1, which are called Image_01L.jpg to Image_14R.jpg; remove it')
        if match:
            masks = {structure: _mask(root, base / f'{Path(name).stem}{end}', name='chase_db1') for structure, end in _CHASE_MASKS.items()}
            examples.append(Example(
                key=Path(name).stem, file=(base / name).relative_to(root).as_posix(), labels={}, patient=match[1], laterality=match[2],
                country='United Kingdom', masks=masks,
            ))
    return examples


def _mask(root: Path, path: Path, *, name: str) -> str:
    file = path.relative_to(root).as_posix()
    if not folders.below(root, file).is_file():
        raise UserError(f'{path}, a mask of {name}, is missing; unpack it again; {folders.get_it(name)}')
    return file


def _draw_drive(out: Path) -> None:
    for place, (part, numbers) in enumerate({'training': (21, 22, 23, 24), 'test': (1, 2, 3)}.items()):
        for number in numbers:
            drawn = photograph(seed_of('drive', number), grade=place * 2)
            folder = out / 'DRIVE' / part
            write_image(folder / 'images' / f'{number:02d}_{part}.tif', drawn.image)
            _write_gif(folder / 'mask' / f'{number:02d}_{part}_mask.gif', drawn.masks['fov'])
            _write_gif(folder / '1st_manual' / f'{number:02d}_manual1.gif', vessels_of(drawn))
            if part == 'test':
                _write_gif(folder / '2nd_manual' / f'{number:02d}_manual2.gif', vessels_of(drawn))


def _draw_chase(out: Path) -> None:
    for number in range(1, 5):
        for place, eye in enumerate('LR'):
            drawn = photograph(seed_of('chase_db1', 2 * number + place))
            stem = out / f'Image_{number:02d}{eye}'
            write_image(stem.with_suffix('.jpg'), drawn.image)
            for end in _CHASE_MASKS.values():
                write_image(stem.with_name(f'{stem.name}{end}'), vessels_of(drawn).astype(np.uint8) * 255)


def vessels_of(drawn: Photograph) -> np.ndarray:
    """The mask of all vessels of a drawn photograph: bool [H, W]."""
    return drawn.masks['artery'] | drawn.masks['vein']


def _write_gif(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask.astype(np.uint8) * 255).save(path)


SETS: tuple[Dataset, ...] = (
    Dataset(
        name='drive', title='DRIVE: Digital Retinal Images for Vessel Extraction', modality='CFP', images=40,
        licence='research use after registration; no standard licence is named',
        citation='Staal J, Abramoff MD, Niemeijer M, Viergever MA, van Ginneken B. Ridge-based vessel segmentation in color images of the '
                 'retina. IEEE Transactions on Medical Imaging 2004;23(4):501-509',
        homepage='https://drive.grand-challenge.org/',
        instructions='1. Register on its page at grand-challenge.org and join. 2. Download training.zip and test.zip. 3. Unpack them into '
                     'drive/DRIVE/ in the data folder, so that training/images, training/1st_manual, training/mask and test/images lie '
                     'in it.',
        files=(File(name='DRIVE'),), labels=(), patient_key='', demographics=('country',), official_split='train 20, test 20',
        retfound_split=None,
        notes='For segmentation: masks of the vessels and of the field of view. The manual masks of the test part are in old archives '
              'only; where they are there, they are named. Patients are not named.',
        read=_read_drive, draw=_draw_drive,
    ),
    Dataset(
        name='chase_db1', title='CHASE_DB1: Child Heart and Health Study in England', modality='CFP', images=28, licence='CC BY 4.0',
        citation='Fraz MM, Remagnino P, Hoppe A, et al. An ensemble classification-based approach applied to retinal blood vessel '
                 'segmentation. IEEE Transactions on Biomedical Engineering 2012;59(9):2538-2548',
        homepage='https://researchdata.kingston.ac.uk/96/',
        instructions='1. Download CHASEDB1.zip from the research data repository of Kingston University. 2. Unpack it into chase_db1/ in '
                     'the data folder, so that Image_01L.jpg, Image_01L_1stHO.png and Image_01L_2ndHO.png lie in it.',
        files=(File(name='Image_01L.jpg'), File(name='CHASEDB1.zip')), labels=(),
        patient_key='the number in the name of the file: Image_01L and Image_01R are the eyes of one child', demographics=('country',),
        official_split='', retfound_split=None,
        notes='For segmentation: masks of the vessels by two observers. Papers often train on the first 20 images and test on the last 8, '
              'which parts no child, but is no official split. The patients are children, of an age that is not given.',
        read=_read_chase, draw=_draw_chase,
    ),
)
