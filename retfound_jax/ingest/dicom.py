"""Ophthalmic photography and tomography from DICOM Part 10 files.

Only the attributes named here are ever parsed, so a patient's name, address or birth date is neither held nor logged. Sizes are checked
from the header before anything is allocated. Baseline JPEG goes through libjpeg-turbo, scaled; all else through pydicom's decoders.
"""
from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
import pydicom
from pydicom import encaps, uid
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.multival import MultiValue
from pydicom.pixels import apply_color_lut, iter_pixels

from retfound_jax.ingest import raster
from retfound_jax.ingest.frame import DECODER_ERRORS, MAX_FILE_BYTES, Frame, ReadError, as_rgb, check_size, one_line, to_eight_bits

_PALETTE = [f'{colour}PaletteColorLookupTable{part}' for colour in ('Red', 'Green', 'Blue') for part in ('Descriptor', 'Data')]
_WINDOW = ['WindowCenter', 'WindowWidth', 'VOILUTFunction', 'RescaleSlope', 'RescaleIntercept']
_TAGS = [
    'SOPClassUID', 'Modality', 'ImageLaterality', 'Laterality', 'PatientID', 'PatientAge', 'PatientSex', 'Manufacturer',
    'ManufacturerModelName', 'Rows', 'Columns', 'NumberOfFrames', 'SamplesPerPixel', 'PhotometricInterpretation', 'PlanarConfiguration',
    'BitsAllocated', 'BitsStored', 'HighBit', 'PixelRepresentation', 'SharedFunctionalGroupsSequence',
    'PerFrameFunctionalGroupsSequence', 'ExtendedOffsetTable', 'ExtendedOffsetTableLengths', 'PixelData', *_PALETTE, *_WINDOW,
]
_KINDS = {  # SOP class, DICOM PS3.6 table A-1
    '1.2.840.10008.5.1.4.1.1.77.1.5.1': 'CFP', '1.2.840.10008.5.1.4.1.1.77.1.5.2': 'CFP', '1.2.840.10008.5.1.4.1.1.77.1.5.4': 'OCT',
    '1.2.840.10008.5.1.4.1.1.77.1.5.5': 'UWF', '1.2.840.10008.5.1.4.1.1.77.1.5.6': 'UWF', '1.2.840.10008.5.1.4.1.1.77.1.5.7': 'ENFACE',
}
_KINDS_BY_MODALITY = {'OP': 'CFP', 'OPT': 'OCT', 'OPTENF': 'ENFACE'}  # secondary captures of an ophthalmic device
_YEARS = {'Y': 1.0, 'M': 1 / 12, 'W': 7 / 365.25, 'D': 1 / 365.25}


def read_dicom(data: bytes, *, shorter_side: int | None) -> list[Frame]:
    """All frames of an ophthalmic image; see `readers.read`. Raises ReadError, also for every other kind of DICOM object."""
    try:
        with _silent():
            _check_deflated(data)
            header = pydicom.dcmread(io.BytesIO(data), specific_tags=_TAGS)
            kind = _kind(header)
            count = _check_header(header)
            fields = _fields(header, kind=kind)
            return _frames(header, count=count, fields=fields, shorter_side=shorter_side)
    except (*DECODER_ERRORS, BytesLengthException, InvalidDicomError) as error:
        raise ReadError(_reason(error)) from error


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """pydicom's warnings and log lines quote header values, in damaged files even the patient's name."""
    logger = logging.getLogger('pydicom')
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings(action='ignore'):
            yield
    finally:
        logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Without the decoder's own words, which may quote the header; its error's name is enough to look further."""
    text = str(error).lower()
    if isinstance(error, EOFError) or 'less than' in text or 'end of file' in text or 'unexpected end' in text:
        return 'is cut short: its DICOM data ends too early'
    if 'unable to decompress' in text or 'missing dependencies' in text or isinstance(error, NotImplementedError):
        return 'is compressed in a way that no installed decoder reads'
    return f'holds damaged or unsupported DICOM data ({type(error).__name__})'


def _check_deflated(data: bytes) -> None:
    """A deflated file is expanded as a whole by pydicom, without a limit; so the limit is enforced here first."""
    stream = io.BytesIO(data)
    stream.seek(132)
    meta = read_dataset(stream, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    if str(meta.get('TransferSyntaxUID', '')) != uid.DeflatedExplicitVRLittleEndian:
        return
    inflate, size, rest = zlib.decompressobj(-zlib.MAX_WBITS), 0, data[stream.tell():]
    while rest and not inflate.eof:
        size += len(inflate.decompress(rest, 1 << 24))
        rest = inflate.unconsumed_tail
        if size > MAX_FILE_BYTES:
            raise ReadError('is too large: it expands to more than 2 GiB')


def _kind(header: Dataset) -> str:
    sop = uid.UID(str(header.get('SOPClassUID', '')))
    modality = one_line(header.get('Modality'))
    kind = _KINDS.get(sop, _KINDS_BY_MODALITY.get(modality, ''))
    if not kind:
        modality = modality if re.fullmatch('[A-Z]{2,16}', modality) else 'unknown'  # anything else may be a piece of another value
        name = sop.name.removesuffix(' Storage') if sop in uid.UID_dictionary else f'DICOM object of modality {modality}'
        raise ReadError(f'holds no ophthalmic photograph or OCT: it is of the kind "{name}"')
    return kind


def _check_header(header: Dataset) -> int:
    """The number of frames; refuses what would be too large or is no picture, before any pixel is touched."""
    count = int(header.get('NumberOfFrames') or 1)
    check_size(int(header.Rows), int(header.Columns), frames=count)
    allocated, stored = int(header.BitsAllocated), int(header.BitsStored)
    if allocated not in (8, 16) or not 2 <= stored <= allocated or int(header.get('HighBit', stored - 1)) != stored - 1:
        raise ReadError(f'stores {stored} of {allocated} bits a sample; 8- and 16-bit pictures can be read')
    if int(header.PixelRepresentation) != 0:
        raise ReadError('stores signed pixels, which no photograph or OCT does')
    if int(header.SamplesPerPixel) not in (1, 3):
        raise ReadError(f'stores {int(header.SamplesPerPixel)} samples a pixel; 1 and 3 can be read')
    if 'PixelData' not in header:
        raise ReadError('is cut short or holds no pixel data')
    return count


def _fields(header: Dataset, *, kind: str) -> dict:
    """What the header says of patient and device. A grey photograph is red-free, autofluorescence or an angiogram: no CFP."""
    grey = str(header.PhotometricInterpretation).startswith('MONOCHROME')
    maker, model = one_line(header.get('Manufacturer')), one_line(header.get('ManufacturerModelName'))
    return {
        'source_height': int(header.Rows), 'source_width': int(header.Columns), 'bit_depth': int(header.BitsStored),
        'modality': '' if kind == 'CFP' and grey else kind, 'patient': one_line(header.get('PatientID')),
        'age': years(one_line(header.get('PatientAge'))), 'sex': one_line(header.get('PatientSex'), limit=16).upper(),
        'camera': model if model.lower().startswith(maker.lower()) else f'{maker} {model}'.strip(),
    }


def years(text: str) -> float:
    """A DICOM age string ('060Y', '018M', '003W', '010D') in years; NaN where it is none."""
    found = re.fullmatch(r'(\d{1,3})([YMWD])', text)
    return int(found[1]) * _YEARS[found[2]] if found else math.nan


def _group(header: Dataset, *, frame: int, name: str) -> Dataset:
    """The functional group `name` of one frame, else the one shared by all frames, else an empty one."""
    per_frame = header.get('PerFrameFunctionalGroupsSequence') or []
    for item in [*per_frame[frame:frame + 1], *(header.get('SharedFunctionalGroupsSequence') or [])[:1]]:
        if item.get(name):
            return item[name].value[0]
    return Dataset()


def _laterality(header: Dataset, *, frame: int) -> str:
    """'L', 'R' or ''; the frame's own word first."""
    side = _group(header, frame=frame, name='FrameAnatomySequence').get('FrameLaterality')
    side = side or header.get('ImageLaterality') or header.get('Laterality')
    return side if side in ('L', 'R') else ''


def _frames(header: Dataset, *, count: int, fields: dict, shorter_side: int | None) -> list[Frame]:
    frames = []
    for i, values in enumerate(_decoded(header, count=count, shorter_side=shorter_side)):
        pixels = _eight_bits(values, header=header, frame=i)
        frames.append(Frame(pixels=as_rgb(pixels), frame=i, laterality=_laterality(header, frame=i), **fields))
    if len(frames) != count:
        raise ReadError(f'is cut short: its header claims {count} pictures and {len(frames)} are there')
    return frames


def _decoded(header: Dataset, *, count: int, shorter_side: int | None) -> Iterator[np.ndarray]:
    """Sample values of each frame, [height, width] or RGB [height, width, 3]."""
    syntax = header.file_meta.TransferSyntaxUID
    if not syntax.is_encapsulated or syntax == uid.RLELossless:
        yield from iter_pixels(header)
        return
    offsets = (header.ExtendedOffsetTable, header.ExtendedOffsetTableLengths) if 'ExtendedOffsetTable' in header else None
    streams = list(encaps.generate_frames(header.PixelData, number_of_frames=count, extended_offsets=offsets))
    for stream in streams:  # decoders believe the stream's own size, so that is what has to be checked
        if stream_size(stream) != (header.Rows, header.Columns):
            raise ReadError('holds damaged DICOM data: a picture inside is not of the size its header claims')
    if not all(_is_plain_jpeg(stream, header=header) for stream in streams):
        yield from iter_pixels(header)
        return
    for stream in streams:
        yield raster.decode_jpeg(stream, shorter_side=shorter_side, grey=header.SamplesPerPixel == 1)


def _is_plain_jpeg(stream: bytes, *, header: Dataset) -> bool:
    """Whether header and JPEG stream agree on a colour space, so that libjpeg-turbo's own conversion is the right one."""
    if header.file_meta.TransferSyntaxUID not in (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit) or header.BitsAllocated != 8:
        return False
    space = raster.jpeg_header(stream)[2]
    colour = str(header.PhotometricInterpretation)
    return (space == 'Gray' and colour.startswith('MONOCHROME')) or (space == 'YCbCr' and colour.startswith('YBR_FULL'))


def stream_size(stream: bytes) -> tuple[int, int] | None:
    """Height and width [px] in a JPEG, JPEG-LS or JPEG 2000 code stream's own header (ITU-T T.81 B.2.2, T.87, T.800 A.5.1)."""
    at = 2 if stream[:2] in (b'\xff\xd8', b'\xff\x4f') else len(stream)
    while at + 21 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker == 0x51:
            right, bottom, left, top = struct.unpack('>IIII', stream[at + 6:at + 22].ljust(16, b'\0'))
            return bottom - top, right - left
        elif marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            return struct.unpack('>HH', stream[at + 5:at + 9])
        else:
            at += 2 + int.from_bytes(stream[at + 2:at + 4])
    return None


def _eight_bits(values: np.ndarray, *, header: Dataset, frame: int) -> np.ndarray:
    colour, stored = str(header.PhotometricInterpretation), int(header.BitsStored)
    if colour == 'PALETTE COLOR':
        values = apply_color_lut(values, header)
        return to_eight_bits(values, bits=8 * values.dtype.itemsize)
    if values.ndim == 3:
        return to_eight_bits(values, bits=stored)
    table = _grey_table(header, frame=frame, stored=stored)
    return (255 - table if colour == 'MONOCHROME1' else table)[values & ((1 << stored) - 1)]


def _grey_table(header: Dataset, *, frame: int, stored: int) -> np.ndarray:
    """uint8 display value of each stored value: by the header's first window if it has one, else the fixed scale of its true bits."""
    window = _group(header, frame=frame, name='FrameVOILUTSequence') or header
    centre, width = (_first(window.get(name)) for name in ('WindowCenter', 'WindowWidth'))
    values = np.arange(1 << stored)
    if centre is None or width is None:
        return to_eight_bits(values, bits=stored)
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        raise ReadError('has a display window without a width')
    rescale = _group(header, frame=frame, name='PixelValueTransformationSequence') or header
    slope, intercept = (_first(rescale.get(name)) for name in ('RescaleSlope', 'RescaleIntercept'))
    values = values * (1.0 if slope is None else slope) + (intercept or 0.0)
    return _windowed(values, centre=centre, width=width, function=str(window.get('VOILUTFunction') or 'LINEAR'))


def _windowed(values: np.ndarray, *, centre: float, width: float, function: str) -> np.ndarray:
    """uint8; DICOM PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == 'SIGMOID':
        share = 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -700, 700)))
    elif function == 'LINEAR_EXACT':
        share = (values - centre) / width + 0.5
    elif function == 'LINEAR':
        share = (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
    else:
        raise ReadError('has a display window of an unknown function')
    return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)


def _first(value: object) -> float | None:
    """The first of one or several numbers."""
    if value is None or value == '':
        return None
    return float(value[0] if isinstance(value, MultiValue) else value)
