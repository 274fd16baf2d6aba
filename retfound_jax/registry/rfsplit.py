"""The eight public datasets as RETFound hands them out: {train,val,test}/CLASS/, with class folders whose names sort as their grades do.

Names of folders: RETFound's benchmark archives as other projects read them; split sizes stand in the datasets' own declarations.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from retfound_jax.core.errors import UserError
from retfound_jax.registry import folders
from retfound_jax.registry.base import Example
from retfound_jax.registry.labels import DR_GRADES

SPLITS = ('train', 'val', 'test')
_DR = ('anodr bmilddr cmoderatedr dseveredr eproliferativedr', 'anoDR bmildDR cmoderateDR dsevereDR eproDR')
_GRADED = {folder: grade for row in _DR for folder, grade in zip(row.split(), DR_GRADES, strict=True)}
JSIEC = {
    '0.0.Normal': 'normal', '0.1.Tessellated fundus': 'tessellated_fundus', '0.2.Large optic cup': 'large_optic_cup', '0.3.DR1': 'dr1',
    '1.0.DR2': 'dr2', '1.1.DR3': 'dr3', '2.0.BRVO': 'brvo', '2.1.CRVO': 'crvo', '3.RAO': 'rao', '4.Rhegmatogenous RD': 'rhegmatogenous_rd',
    '5.0.CSCR': 'cscr', '5.1.VKH disease': 'vkh_disease', '6.Maculopathy': 'maculopathy', '7.ERM': 'erm', '8.MH': 'macular_hole',
    '9.Pathological myopia': 'pathological_myopia', '10.0.Possible glaucoma': 'possible_glaucoma', '10.1.Optic atrophy': 'optic_atrophy',
    '11.Severe hypertensive '
    'retinopathy': 'severe_hypertensive_retinopathy', '12.Disc swelling and elevation': 'disc_swelling_and_elevation',
    '13.Dragged Disc': 'dragged_disc', '14.Congenital disc abnormality': 'congenital_disc_abnormality',
    '15.0.Retinitis pigmentosa': 'retinitis_pigmentosa', '15.1.Bietti crystalline dystrophy': 'bietti_crystalline_dystrophy',
    '16.Peripheral retinal degeneration and break': 'peripheral_retinal_degeneration_and_break',
    '17.Myelinated nerve fiber': 'myelinated_nerve_fiber', '18.Vitreous particles': 'vitreous_particles',
    '19.Fundus neoplasm': 'fundus_neoplasm', '20.Massive hard exudates': 'massive_hard_exudates',
    '21.Yellow-white spots-flecks': 'yellow_white_spots_flecks', '22.Cotton-wool spots': 'cotton_wool_spots',
    '23.Vessel tortuosity': 'vessel_tortuosity', '24.Chorioretinal atrophy-coloboma': 'chorioretinal_atrophy_coloboma',
    '25.Preretinal hemorrhage': 'preretinal_haemorrhage', '26.Fibrosis': 'fibrosis', '27.Laser Spots': 'laser_spots',
    '28.Silicon oil in eye': 'silicone_oil', '29.0.Blur fundus without PDR': 'blur_without_pdr',
    '29.1.Blur fundus with suspected PDR': 'blur_with_suspected_pdr',
}
# Dataset to its label and to what each class folder means.
FOLDERS: dict[str, tuple[str, Mapping[str, str]]] = {
    'aptos2019': ('dr_grade', _GRADED),
    'idrid': ('dr_grade', _GRADED),
    'messidor2': ('dr_grade', _GRADED),
    'papila': ('glaucoma', {'anormal': 'healthy', 'bsuspectglaucoma': 'suspect', 'cglaucoma': 'glaucoma'}),
    'glaucoma_fundus': ('glaucoma_stage', {'anormal_control': 'normal', 'bearly_glaucoma': 'early', 'cadvanced_glaucoma': 'advanced'}),
    'jsiec': ('disease', JSIEC),
    'retina': ('disease', {'anormal': 'normal', 'bcataract': 'cataract', 'cglaucoma': 'glaucoma', 'ddretina_disease': 'retina_disease'}),
    'octid': ('disease', {'ANormal': 'normal', 'ARMD': 'amd', 'CSR': 'csr', 'Diabetic_retinopathy': 'dr', 'Macular_Hole': 'macular_hole'}),
}


def split_base(root: Path) -> Path | None:
    """The folder of train/, val/ and test/, where at least one of them is there: `root`, or its only folder."""
    if not root.is_dir():
        return None
    inner = folders.subfolders(root)
    candidates = [root, root / inner[0]] if len(inner) == 1 else [root]
    return next((folder for folder in candidates if any((folder / split).is_dir() for split in SPLITS)), None)


def read_split(root: Path, *, name: str, patient: Callable[[str], str] | None = None) -> list[Example]:
    """All images of RETFound's layout, each with its split. patient: of a file's stem.

    Raises:
      UserError: a split or a class is missing, or a folder is no class.
    """
    base, (label, classes) = split_base(root) or root, FOLDERS[name]
    examples = []
    for split in SPLITS:
        if not (base / split).is_dir():
            raise UserError(f'{base / split} is missing, so RETFound\'s split of {name} is not whole; {folders.get_it(name)}')
        folders.below(root, (base / split).relative_to(root).as_posix())
        examples += folders.class_folders(root, base / split, name=name, label=label, classes=classes, split=split, patient=patient)
    return examples


def either(name: str, original: Callable[[Path], list[Example]], *, patient: Callable[[str], str] | None = None
           ) -> Callable[[Path], list[Example]]:
    """A reader of the original layout and of RETFound's, whichever lies there."""
    def read(root: Path) -> list[Example]:
        return original(root) if split_base(root) is None else read_split(root, name=name, patient=patient)

    return read


def copy_as_split(examples: list[Example], source: Path, out: Path, *, name: str) -> None:
    """Lays images of the original layout out as RETFound does, the images of each class in turn to train, val and test.

    For fixtures: the real assignment is known from the archives only.
    """
    label, classes = FOLDERS[name]
    folder_of = {word: folder for folder, word in classes.items()}
    turns: dict[str, int] = defaultdict(int)
    for example in examples:
        word = example.labels[label]
        if word:
            place = out / SPLITS[turns[word] % 3] / folder_of[word]
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / example.file, place / Path(example.file).name)
            turns[word] += 1
