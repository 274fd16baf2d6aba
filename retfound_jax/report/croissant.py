"""A dataset described for machines: Croissant 1.1 with the RAI vocabulary 1.0 (MLCommons), from the manifest and the owner's facts.

The description belongs beside the dataset's files, to whose names it points. Its record set is the index, one record an image; the shards
are files with their SHA-256. What the owner did not say is said to be not provided, never left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from retfound_jax.core.files import sha256_file
from retfound_jax.report import known
from retfound_jax.report.census import LABEL
from retfound_jax.report.composition import Composition
from retfound_jax.report.dataset_facts import Facts
from retfound_jax.report.words import clean

NOT_PROVIDED = 'Not provided by the owner of the dataset.'
CONFORMS_TO = ('http://mlcommons.org/croissant/1.1', 'http://mlcommons.org/croissant/RAI/1.0')
_INDEX = 'index.parquet'
_TYPES = {'string': 'sc:Text', 'large_string': 'sc:Text', 'int64': 'sc:Integer', 'float': 'sc:Float', 'double': 'sc:Float'}
# The context that the specification of 1.1 gives (docs.mlcommons.org/croissant), which readers compare with.
CONTEXT = {
    '@language': 'en', '@vocab': 'https://schema.org/', 'arrayShape': 'cr:arrayShape', 'citeAs': 'cr:citeAs', 'column': 'cr:column',
    'conformsTo': 'dct:conformsTo', 'containedIn': 'cr:containedIn', 'cr': 'http://mlcommons.org/croissant/',
    'data': {'@id': 'cr:data', '@type': '@json'}, 'dataType': {'@id': 'cr:dataType', '@type': '@vocab'},
    'dct': 'http://purl.org/dc/terms/', 'description': {'@container': '@language'}, 'equivalentProperty': 'cr:equivalentProperty',
    'examples': {'@id': 'cr:examples', '@type': '@json'}, 'extract': 'cr:extract', 'field': 'cr:field', 'fileObject': 'cr:fileObject',
    'fileProperty': 'cr:fileProperty', 'fileSet': 'cr:fileSet', 'format': 'cr:format', 'includes': 'cr:includes', 'isArray': 'cr:isArray',
    'isLiveDataset': 'cr:isLiveDataset', 'jsonPath': 'cr:jsonPath', 'key': 'cr:key', 'md5': 'cr:md5', 'name': {'@container': '@language'},
    'parentField': 'cr:parentField', 'path': 'cr:path', 'rai': 'http://mlcommons.org/croissant/RAI/', 'recordSet': 'cr:recordSet',
    'references': 'cr:references', 'regex': 'cr:regex', 'repeated': 'cr:repeated', 'replace': 'cr:replace',
    'samplingRate': 'cr:samplingRate', 'sc': 'https://schema.org/', 'separator': 'cr:separator', 'source': 'cr:source',
    'subField': 'cr:subField', 'transform': 'cr:transform',
}
_MEANINGS = {
    'split': 'train, val or test; nobody is in two', 'position': 'place of the record in its split', 'key': 'name of the image',
    'patient': 'pseudonym of the patient', 'group': 'patients joined by a shared image', 'laterality': 'L or R',
    'modality': 'CFP for a colour photograph of the fundus, OCT, ...', 'age': 'age [years]', 'sex': 'F, M, or the word as given',
    'ethnicity': 'ethnicity, in the classification that the datasheet names', 'country': 'country', 'site': 'hospital or clinic',
    'camera': 'camera', 'file': 'file the image was read from', 'frame': 'frame of a file of several, from 0',
    'source_height': 'height of the image as it was read [px]', 'source_width': 'width of the image as it was read [px]',
    'pixel_sha256': 'SHA-256 of the pixels as read', 'phash': 'perceptual hash of 256 bits', 'diabetes_type': 'type of diabetes',
    'source': 'where the image comes from',
}


def describe(found: Composition, place: int, *, folder: Path | str, facts: Facts) -> dict[str, Any]:
    """The description of one dataset, ready for `croissant.json`."""
    folder, manifest = Path(folder), found.manifests[place]
    named = {
        '@context': CONTEXT, '@type': 'sc:Dataset', 'conformsTo': list(CONFORMS_TO), 'name': facts['title'] or clean(found.names[place]),
        'description': ' '.join(filter(None, (facts['description'], known.contents(found, place)))),
        'keywords': ['retina', 'ophthalmology', 'medical imaging'],
        'version': facts['version'] or f'1.0.0+{str(manifest.get("fingerprint") or "unknown")[:12]}',
        'license': facts['licence'] or NOT_PROVIDED, 'citeAs': facts['citation'] or NOT_PROVIDED,
    }
    optional = {
        'url': facts['url'], 'datePublished': facts['released'], 'creator': _body(facts['creators']),
        'publisher': _body(facts['custodian']),
    }
    return _plain({
        **named, **{key: value for key, value in optional.items() if value}, **_rai(found, place, facts),
        'distribution': _files(folder, manifest), **_records(folder, manifest),
    })


def _plain(value: Any) -> Any:
    """Ordinary spaces for the thin ones that a page has."""
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list) else value.replace('\u202f', ' ') if isinstance(value, str) else value


def file_name(found: Composition, place: int) -> str:
    """`croissant.json`, or with the dataset's name where there are several."""
    if len(found.names) == 1:
        return 'croissant.json'
    plain = ''.join(letter if letter.isascii() and (letter.isalnum() or letter in '-_.') else '_' for letter in found.names[place])
    twice = [name for name in found.names if name != found.names[place] and len(name) == len(found.names[place])]
    return f'croissant_{plain}{f"_{place}" if twice else ""}.json'


def _body(name: str) -> dict[str, str] | None:
    return {'@type': 'sc:Organization', 'name': name} if name else None


def _rai(found: Composition, place: int, facts: Facts) -> dict[str, Any]:
    """The responsible-AI properties: a list where the vocabulary takes several values."""
    manifest = found.manifests[place]

    def said(*keys: str) -> list[str]:
        return [facts[key] for key in keys if facts[key]]

    def one(*sentences: str) -> str:
        return ' '.join(filter(None, sentences)) or NOT_PROVIDED

    owner = said('origin', 'collection', 'time_frame', 'sampling', 'sources', 'attributes')
    return {
        'rai:dataCollection': one(*owner, known.collection(manifest), '' if owner else f'How the images were taken: {NOT_PROVIDED}'),
        'rai:dataCollectionMissingData': one(*said('missing'), *known.missing(found, place)),
        'rai:dataCollectionRawData': one(*said('modifications'), '' if said('modifications') else NOT_PROVIDED),
        'rai:dataPreprocessingProtocol': known.processing(manifest),
        'rai:dataImputationProtocol': 'No value was imputed.',
        'rai:dataAnnotationProtocol': said('labels') or [NOT_PROVIDED],
        'rai:dataBiases': [*said('biases', 'sampling_bias', 'aggregation_bias', 'shifts', 'outcomes'), *known.biases(found, place)],
        'rai:dataLimitations': [*said('limitations', 'absent_groups', 'not_for'), *known.limitations(found, place)],
        'rai:dataUseCases': said('uses', 'purpose') or [NOT_PROVIDED],
        'rai:dataSocialImpact': one(*said('social_impact', 'assessments', 'participation')),
        'rai:personalSensitiveInformation': [*said('sensitive', 'ethics', 'protection', 'governance'), *known.sensitive(found, place)],
        'rai:dataReleaseMaintenancePlan': one(*said('maintenance')),
    }


def _files(folder: Path, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The index and every shard."""
    files = [
        {
            '@type': 'cr:FileObject', '@id': clean(shard['file']), 'name': clean(shard['file']), 'contentUrl': clean(shard['file']),
            'contentSize': f'{int(shard["bytes"])} B', 'encodingFormat': 'application/octet-stream', 'sha256': shard['sha256'],
            'description': f'ArrayRecord shard of {clean(shard["split"])}: a tf.train.Example an image, its JPEG in the feature image.',
        }
        for shard in manifest.get('shards') or ()
    ]
    if (folder / _INDEX).is_file():
        index = {
            '@type': 'cr:FileObject', '@id': _INDEX, 'name': _INDEX, 'contentUrl': _INDEX, 'encodingFormat': 'application/x-parquet',
            'contentSize': f'{(folder / _INDEX).stat().st_size} B', 'sha256': sha256_file(folder / _INDEX),
            'description': 'What is known of each image, one row an image.',
        }
        files.insert(0, index)
    return files


def _records(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The record set of the index; none without an index."""
    if not (folder / _INDEX).is_file():
        return {}
    schema = pq.read_schema(folder / _INDEX)
    fields = [_field(field.name, str(field.type), manifest) for field in schema if str(field.type) in _TYPES]
    described = 'One record an image: its split, patient, demographics, labels and quality.'
    return {'recordSet': [{'@type': 'cr:RecordSet', '@id': 'images', 'name': 'images', 'description': described, 'field': fields}]}


def _field(column: str, kind: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
    source = {'fileObject': {'@id': _INDEX}, 'extract': {'column': column}}
    name = clean(column)
    return {
        '@type': 'cr:Field', '@id': f'images/{name.replace(":", "_")}', 'name': name, 'description': _meaning(column, manifest),
        'dataType': _TYPES[kind], 'source': source,
    }


def _meaning(column: str, manifest: Mapping[str, Any]) -> str:
    if column.startswith(LABEL):
        classes: Sequence[str] = ((manifest.get('labels') or {}).get(column[len(LABEL) :]) or {}).get('classes') or ()
        words = ', '.join(f'{number} {clean(word)}' for number, word in enumerate(classes))
        return f'label {clean(column[len(LABEL) :])}: {words or "a number"}; NaN where missing'
    if column.startswith('quality:'):
        return f'quality of the picture: {clean(column[len("quality:") :])}'
    return _MEANINGS.get(column, clean(column))
