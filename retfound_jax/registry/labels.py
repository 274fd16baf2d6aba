"""Labels that several datasets have, under one name and with the same classes, so that one can be tested on another."""

from __future__ import annotations

from retfound_jax.core.errors import UserError
from retfound_jax.registry.base import Label

DR_GRADES = ('no_dr', 'mild', 'moderate', 'severe', 'proliferative')
DR_GRADE = Label(
    name='dr_grade', classes=DR_GRADES, ordinal=True,
    meaning='diabetic retinopathy by the International Clinical Diabetic Retinopathy scale (ICDR): none; mild, moderate and severe '
            'non-proliferative; proliferative',
)
DME_RISK = Label(
    name='dme_risk', classes=('no_risk', 'low', 'high'), ordinal=True,
    meaning='risk of diabetic macular oedema: no hard exudate; one farther than a disc diameter from the fovea; one nearer',
)


def numbered(cell: str, classes: tuple[str, ...], *, where: str) -> str:
    """The class that a table gives by its number, such as 2 or 2.0; '' where the cell is empty.

    where: the table and its line, for the error.

    Raises:
      UserError: the cell is the number of no class.
    """
    if not cell:
        return ''
    number = cell[:-2] if cell.endswith('.0') else cell
    if not (number.isascii() and number.isdigit() and int(number) < len(classes)):
        raise UserError(f'{where} has "{cell}" where a number from 0 to {len(classes) - 1} ({", ".join(classes)}) is needed; see to that '
                        f'line')
    return classes[int(number)]
