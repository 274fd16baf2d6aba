"""What a manifest lets one say of a dataset in plain sentences: how it was made, what was changed, what is missing, what may mislead.

Every sentence is computed; none holds a count that may not be shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from retfound_jax.core.demographics import DECLINED, FLOOR, MISSING, NOT_A_GROUP
from retfound_jax.report import coverage
from retfound_jax.report.census import LABEL
from retfound_jax.report.composition import Composition
from retfound_jax.report.words import clean, count, joined, nice, percent, plural

_MODALITIES = {'CFP': 'colour photographs of the fundus', 'OCT': 'optical coherence tomography', 'UWF': 'ultra-widefield photographs'}
_HALF = 0.5  # of the patients in one group of a field: it is named as most of them
_RARE = 0.05  # of the images in a class of a label: it is named as rare
_MOST = 12  # changes that are told
CHANGES_HEAD = ('Field', 'From', 'To', 'Cells', 'Patients', 'Why')


def contents(found: Composition, place: int = 0) -> str:
    """How much of what."""
    manifest, everybody = found.manifests[place], found.count(place=place)
    named = [_MODALITIES.get(kind, clean(kind)) for kind in manifest.get('modality') or {} if kind]
    kinds = f': {joined(named)}' if named else '; of which kind is not recorded'
    if everybody.hidden:
        return f'Images of fewer than {FLOOR} patients{kinds}. How many is withheld.'
    splits = [f'{split} {count(found.count(place=place, split=split).patients)}' for split in found.splits[place]]
    return (
        f'{count(everybody.images)} images of {plural(everybody.patients or 0, "patient")}{kinds}. '
        f'Patients by split: {", ".join(splits)}. Nobody is in two splits.'
    )


def collection(manifest: Mapping[str, Any]) -> str:
    """What ingest knows of where the files came from."""
    source, files = manifest.get('provenance') or {}, manifest.get('files') or {}
    labels = source.get('labels') or {}
    read = f'Read from {plural(int(files.get("found") or 0), "file")} in a folder named {clean(source.get("source", ""))}'
    rows = plural(int(labels.get('rows') or 0), 'row')
    return f'{read}, with the table {clean(labels.get("file", ""))} of {rows}.' if labels else f'{read}, without a table of labels.'


def processing(manifest: Mapping[str, Any]) -> list[str]:
    """What was done to the pictures and the table."""
    options = (manifest.get('provenance') or {}).get('options') or {}
    said = [
        f'Pictures were cropped to the field of view, scaled to a shorter side of {options.get("shorter_side", "unknown")} px, '
        f'and kept as JPEG of quality {options.get("jpeg_quality", "unknown")}.',
        'Splits were drawn by patient; patients joined by a shared picture stay together.'
        if not options.get('split_column') else 'Splits are those of the table, given by patient.',
    ]
    return [*said, *filter(None, (duplicates(manifest), rejected(manifest), changed(manifest))), 'No value was imputed.']


def duplicates(manifest: Mapping[str, Any]) -> str:
    """Pictures found twice."""
    found = manifest.get('duplicates') or {}
    if not any(found.get(name) for name in ('exact_groups', 'near_groups', 'joined_patients')):
        return 'No picture was found twice.' if found else ''
    sharing = found.get('joined_patients') or 0
    who = plural(sharing, 'patient') if sharing >= FLOOR else 'patients'
    shared = f'; {who} sharing a picture with another stay in one split with them' if sharing else ''
    exact, near = (plural(found.get(f'{kind}_groups') or 0, 'group') for kind in ('exact', 'near'))
    return clean(f'{exact} of identical pictures and {near} of near ones were found{shared}.')


def rejected(manifest: Mapping[str, Any]) -> str:
    """Files left out."""
    rejects = manifest.get('rejects') or {}
    if 'count' not in rejects:
        return ''
    files = plural(rejects['count'], 'file was', 'files were')
    return f'{files} rejected; rejects.csv names each.' if rejects['count'] else 'No file was rejected.'


def changes(manifest: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The changes that ingest made to what was written about people, the most frequent first."""
    made = [one for one in (manifest.get('demographics') or {}).get('changes') or () if isinstance(one, Mapping)]
    return sorted(made, key=lambda one: (-int(one.get('cells') or 0), str(one.get('field')), str(one.get('from'))))


def changed(manifest: Mapping[str, Any]) -> str:
    """Of which fields words were changed, in a sentence; '' where the manifest does not say."""
    if 'demographics' not in manifest:
        return ''
    fields = sorted({name_of(str(one.get('field', ''))).lower() for one in changes(manifest)})
    if not fields:
        return 'No word about people had to be changed.'
    return f'What was written about people was changed where it was not in the words of the schema, and is counted here ({joined(fields)}).'


def missing(found: Composition, place: int = 0) -> list[str]:
    """What is missing of each field, and what was declined."""
    said, everybody = [], found.count(place=place)
    for field in found.fields():
        if field in found.unknown[place]:
            said.append(f'{name_of(field)} is not recorded for anybody.')
            continue
        for value, verb in ((MISSING, 'missing'), (DECLINED, 'declined')):
            one = found.count(value, fields=(field,), place=place)
            if one.hidden:
                said.append(f'{name_of(field)} is {verb} for few patients (withheld).')
            elif not one.nobody and one.images and everybody.images:
                said.append(f'{name_of(field)} is {verb} for {percent(one.images, everybody.images)} of the images.')
    return [*said, *(f'{name_of(field)} is not recorded for anybody.' for field in found.unknown[place] if field not in found.fields())]


def biases(found: Composition, place: int = 0) -> list[str]:
    """What in the composition may mislead a model or a reader."""
    said = [gap.words for gap in coverage.gaps(found) if gap.absent or gap.few or gap.unknown] if len(found.names) == 1 else []
    everybody = found.count(place=place).images or 0
    for field in found.fields() if everybody else ():
        groups = {value: found.count(value, fields=(field,), place=place) for value in found.values(field, place=place)}
        shown = {value: one.images or 0 for value, one in groups.items() if value not in NOT_A_GROUP and one.images}
        largest = max(shown, key=shown.__getitem__, default='')
        if largest and shown[largest] > _HALF * everybody and field != 'laterality':
            alone = ' and no other' if len(groups.keys() - NOT_A_GROUP) == 1 else ''
            said.append(f'{percent(shown[largest], everybody)} of the images are of one {name_of(field).lower()}, {nice(largest)}{alone}.')
    for label in found.fields(labels=True):
        classes = {value: found.count(value, fields=(label,), place=place) for value in found.values(label, place=place)}
        rare = [value for value, one in classes.items() if value != MISSING and (one.hidden or (one.images or 0) < _RARE * everybody)]
        if rare:
            said.append(f'Rare in the label {clean(label.removeprefix(LABEL))}: {joined(map(nice, rare))}.')
    return said


def limitations(found: Composition, place: int = 0) -> list[str]:
    """What cannot be learned from it or shown on it."""
    unknown = [name_of(field).lower() for field in found.unknown[place]]
    said = [f'Nothing can be shown by {joined(unknown)}: not recorded.'] if unknown else []
    return [*said, f'Groups of fewer than {FLOOR} patients are withheld, and performance in them cannot be judged.']


def sensitive(found: Composition, place: int = 0) -> list[str]:
    """What is personal in it."""
    known = [name_of(field).lower() for field in found.fields() if field not in found.unknown[place]]
    recorded = f'Recorded of each patient or image: {joined(known)}.' if known else 'Nothing is recorded about the patients.'
    labels = [clean(label.removeprefix(LABEL)) for label in found.fields(labels=True)]
    health = f'Health: the images, and the labels {joined(labels)}.' if labels else 'Health: the images.'
    return [recorded, health, 'A photograph of a retina can identify a person; the data are pseudonymised at best, never anonymous.']


def name_of(field: str) -> str:
    """A field or label as it is printed."""
    if field.startswith(LABEL):
        return f'“{clean(field.removeprefix(LABEL))}”'
    return {'laterality': 'Eye', 'diabetes_type': 'Type of diabetes', 'source': 'Source'}.get(field, field.replace('_', ' ').capitalize())


def change_rows(manifest: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], int]:
    """Rows of CHANGES_HEAD, and how many more there are. What fewer than FLOOR patients wrote is withheld: it may be their own words."""
    made = changes(manifest)
    rows = []
    for one in made[:_MOST]:
        few = int(one.get('patients') or 0) < FLOOR
        words = 'withheld' if few else nice(one.get('from', ''))[:40]
        rows.append((
            name_of(str(one.get('field', ''))), words, 'withheld' if few else nice(one.get('to', ''))[:40] or MISSING,
            *(('withheld', 'withheld') if few else (count(one.get('cells')), count(one.get('patients')))),
            clean(one.get('reason') or 'a word for it'),
        ))
    return rows, max(0, len(made) - _MOST)


def scheme(manifest: Mapping[str, Any]) -> str:
    """The classification that ethnicity follows, '' where none is named."""
    return clean((manifest.get('demographics') or {}).get('ethnicity_scheme') or '')


def contradictions(manifest: Mapping[str, Any]) -> Iterable[str]:
    """Patients whose rows contradict each other, by field."""
    for field, patients in sorted(((manifest.get('demographics') or {}).get('contradictions') or {}).items()):
        few = 0 < int(patients) < FLOOR
        if patients:
            who = f'fewer than {FLOOR} patients' if few else plural(int(patients), 'patient')
            yield f'{name_of(str(field))}: rows of {who} contradict each other.'
