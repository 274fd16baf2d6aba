"""HEI-MED: 169 photographs of a telemedicine network, with outlined exudates, sex and ethnicity."""

from __future__ import annotations

import gzip
import re
import zlib
from pathlib import Path

import numpy as np

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders
from retfound_jax.registry.base import Dataset, Example, File
from retfound_jax.registry.draw import photograph, seed_of, write_image
from retfound_jax.registry.flags import WORDS, finding
from retfound_jax.registry.sets_vessels import vessels_of

_NAME, _FOLDER = 'hei_med', 'DMED'
_VESSELS = '_vess.png'
_BLOB = re.compile(r'(.+) ([01])')  # a lesion's name, and 1 for a bright one
_ETHNICITY = {'AFRICAN': 'African', 'CAUCASIAN': 'Caucasian', 'HISPANIC': 'Hispanic', 'UNKNOWN': '', '': ''}
_SEX = {'F': 'F', 'M': 'M', 'O': '', '': ''}
_MOST_TEXT, _MOST_PIXELS = 1 << 20, 1 << 26  # [bytes], [px]


def _read(root: Path) -> list[Example]:
    base = folders.base_of(root, [_FOLDER], name=_NAME) / _FOLDER
    names = [name for name in folders.pictures(base) if name.endswith('.jpg')]
    return [_example(root, base, name.removesuffix('.jpg')) for name in names]


def _example(root: Path, base: Path, stem: str) -> Example:
    start = base.relative_to(root)
    for end in ('.meta', '.GND', '.map.gz'):
        if not folders.below(root, (start / f'{stem}{end}').as_posix()).is_file():
            raise UserError(f'{base / f"{stem}{end}"} is missing beside {stem}.jpg; download {_NAME} again; {folders.get_it(_NAME)}')
    about, lesions = _meta(base / f'{stem}.meta'), _lesions(base / f'{stem}.GND')
    masks = {'bright_and_dark_lesions': (start / f'{stem}.map.gz').as_posix()}
    if (base / f'{stem}{_VESSELS}').is_file():
        masks['vessels_by_machine'] = (start / f'{stem}{_VESSELS}').as_posix()
    found = {'exudate': any(name.casefold() == 'exudate' for name, _ in lesions), 'bright_lesion': any(bright for _, bright in lesions)}
    return Example(
        key=folders.safe_key(stem.replace('(', '').replace(')', '')), file=(start / f'{stem}.jpg').as_posix(),
        labels={name: WORDS[there] for name, there in found.items()}, sex=_word(about, 'PatientGender', _SEX, base / f'{stem}.meta'),
        ethnicity=_word(about, 'PatientRace', _ETHNICITY, base / f'{stem}.meta'), country='United States', masks=masks,
    )


def _meta(path: Path) -> dict[str, str]:
    """Fields of a line each, as ~NAME~VALUE. The date of birth is among them, and is not kept."""
    parts = [line.strip().split('~') for line in _text(path).splitlines()]
    return {part[1]: part[2].strip() for part in parts if len(part) == 3 and part[1] != 'PatientDOB'}


def _word(about: dict[str, str], field: str, words: dict[str, str], path: Path) -> str:
    cell = about.get(field, '')
    if cell not in words:
        raise UserError(f'{path} has "{cell}" for {field}, which is none of {", ".join(filter(None, words))}; download the file again')
    return words[cell]


def _lesions(path: Path) -> list[tuple[str, bool]]:
    """Each outlined lesion's name and whether it is a bright one, in the order of their numbers in the map."""
    lines = [line.strip() for line in _text(path).splitlines()]
    lines = lines[1:] if lines and lines[0].startswith('GNDVERSION') else lines
    count = int(lines[0]) if lines and lines[0].isdecimal() and len(lines[0]) < 7 else -1
    matches = [_BLOB.fullmatch(line) for line in lines[1:1 + count]] if count >= 0 else []
    if count < 0 or len(matches) != count or not all(matches):
        raise UserError(f'{path} is no list of lesions: a number and as many lines are needed; download the file again')
    return [(match[1], match[2] == '1') for match in matches if match]


def _text(path: Path) -> str:
    with open(path, 'rb') as file:
        data = file.read(_MOST_TEXT + 1)
    if len(data) > _MOST_TEXT:
        raise UserError(f'{path} is larger than {_MOST_TEXT >> 20} MiB, which no such file is; download it again')
    return data.decode('latin-1')


def lesion_map(path: Path) -> np.ndarray:
    """The number of the outlined lesion at each pixel, int32 [H, W], 0 where there is none, of a .map.gz of HEI-MED.

    Raises:
      UserError: the file is damaged, or larger than a photograph.
    """
    try:
        with gzip.open(path) as file:
            _, width, height = np.frombuffer(file.read(12), '<i4').tolist()
            if not (0 < width and 0 < height and width * height <= _MOST_PIXELS):
                raise ValueError(f'it is said to be {width} x {height} px')
            data = file.read(4 * width * height)
            return np.frombuffer(data, '<i4').reshape(height, width)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise UserError(f'{path} cannot be read as a map of lesions ({error}); download it again') from error


def _draw(out: Path) -> None:
    for number in range(8):
        drawn, stem = photograph(seed_of(_NAME, number), grade=(0, 0, 2, 3)[number % 4]), f'({number:08d}){".dcm" if number > 4 else ""}'
        base = out / _FOLDER
        write_image(base / f'{stem}.jpg', drawn.image)
        write_image(base / f'{stem}{_VESSELS}', vessels_of(drawn).astype(np.uint8) * 255)
        lesions = ([], ['Other Bright Lesion 1'], ['Exudate 1', 'MicroAneurysm 0'], ['Exudate 1', 'Exudate 1'])[number % 4]
        height, width = drawn.image.shape[:2]
        blobs = np.zeros((height, width), '<i4')
        for place in range(len(lesions)):
            blobs[20 + 4 * place:22 + 4 * place, 30:34] = place + 1
        header = np.array([-43, width, height], '<i4')
        (base / f'{stem}.map.gz').write_bytes(gzip.compress(header.tobytes() + blobs.tobytes(), mtime=0))
        (base / f'{stem}.GND').write_bytes(('\r\n'.join([str(len(lesions)), *lesions, '0', '0', '0', 'NA']) + '\r\n').encode())
        fields = {'ImageName:': f'{stem}.jpg', 'PatientGender': 'FMO'[number % 3], 'PatientRace': tuple(_ETHNICITY)[number % 4],
                  'PatientDOB': '1/1/1950', 'QualityValue': '0.5', 'DiabetesType': 'TYPE II', 'ONrow': '32', 'ONcol': '20'}
        (base / f'{stem}.meta').write_bytes(''.join(f'~{name}~{value}\r\n' for name, value in fields.items()).encode())


SETS: tuple[Dataset, ...] = (
    Dataset(
        name=_NAME, title='HEI-MED: Hamilton Eye Institute Macular Edema Dataset', modality='CFP', images=169,
        licence='for non-commercial research only, with citation',
        citation='Giancardo L, Meriaudeau F, Karnowski TP, et al. Exudate-based diabetic macular edema detection in fundus images using '
                 'publicly available datasets. Medical Image Analysis 2012;16(1):216-226',
        homepage='https://github.com/lgiancaUTH/HEI-MED',
        instructions='1. Download the repository from its page (Code, Download ZIP), or git clone it. 2. Put it into hei_med/ in the data '
                     'folder, so that DMED with its .jpg, .meta, .GND and .map.gz lies there (a folder of the archive around it does no '
                     'harm).',
        files=(File(name=_FOLDER),),
        labels=(finding('exudate', 'an exudate was outlined by the ophthalmologist; hard and soft ones are not told apart'),
                finding('bright_lesion', 'a bright lesion of any kind was outlined: exudate, cotton-wool spot, drusen, scar, artefact')),
        patient_key='', demographics=('sex', 'ethnicity', 'country'), official_split='', retfound_split=None,
        notes='No patient is there twice, as its page says. Outlines are a map of numbers (.map.gz) with a name for each number (.GND); '
              'the masks of vessels are a machine\'s. Dates of birth lie in the .meta files, without dates of the visit: no age can be '
              'had, and they are not read on.',
        read=_read, draw=_draw,
    ),
)
