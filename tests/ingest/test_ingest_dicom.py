"""Ophthalmic DICOM: pixels and header of files built here and of the real-pixel files where they are at hand."""
from __future__ import annotations

import contextlib
import csv
import io
import logging
import math
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import encaps, uid
from pydicom.dataset import Dataset, FileMetaDataset

from retfound_jax.ingest import dicom, readers

REAL = Path(__file__).parents[3] / 'shared/data/dicom_ophthalmic'
OTHER = REAL.parent / 'other_medical'
PHOTO, DEEP_PHOTO, OCT = (f'1.2.840.10008.5.1.4.1.1.77.1.5.{i}' for i in (1, 2, 4))
FUZZ = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
NAME = 'Sommersby^Evangelina'


def picture(*, channels: int = 3, height: int = 48, width: int = 64) -> np.ndarray:
    yy, xx = np.mgrid[:height, :width]
    colour = np.stack([255 * yy // height, 255 * xx // width, 255 * (xx * yy) // (height * width)], axis=2).astype(np.uint8)
    return colour if channels == 3 else colour[:, :, 2]


def header(pixels: np.ndarray, *, frames: int | None = None, bits: int | None = None, sop: str = PHOTO, **attributes: object) -> Dataset:
    """The attributes every image needs; a patient's name is put in to see that it never comes out."""
    item = Dataset()
    item.SOPClassUID, item.SOPInstanceUID, item.Modality = sop, '1.2.3', 'OPT' if sop == OCT else 'OP'
    item.PatientName, item.PatientID, item.PatientSex, item.PatientAge = NAME, 'P7', 'F', '061Y'
    item.Manufacturer, item.ManufacturerModelName, item.ImageLaterality = 'Zeiss', 'Visucam', 'R'
    shape = pixels.shape[1:] if frames else pixels.shape
    item.Rows, item.Columns, item.SamplesPerPixel = shape[0], shape[1], 3 if len(shape) == 3 else 1
    item.PhotometricInterpretation = 'RGB' if len(shape) == 3 else 'MONOCHROME2'
    item.BitsAllocated = 8 * pixels.dtype.itemsize
    item.BitsStored = bits or item.BitsAllocated
    item.HighBit, item.PixelRepresentation = item.BitsStored - 1, 0
    if len(shape) == 3:
        item.PlanarConfiguration = 0
    if frames:
        item.NumberOfFrames = frames
    for name, value in attributes.items():
        setattr(item, name, value)
    return item


def written(
    item: Dataset, *, syntax: uid.UID = uid.ExplicitVRLittleEndian, data: bytes | None = None, pixels: np.ndarray | None = None,
) -> bytes:
    item.file_meta = FileMetaDataset()
    item.file_meta.TransferSyntaxUID = syntax
    item.PixelData = pixels.tobytes() if data is None else data
    item['PixelData'].VR = 'OW' if item.BitsAllocated > 8 else 'OB'
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, item, enforce_file_format=True)
    return stream.getvalue()


def frames_of(folder: Path, data: bytes, **options: object) -> list[readers.Frame]:
    path = folder / 'eye.dcm'
    path.write_bytes(data)
    return readers.read(path, **options)


def refusal(folder: Path, data: bytes) -> str:
    with pytest.raises(readers.ReadError) as caught:
        frames_of(folder, data)
    text = str(caught.value)
    assert text.startswith('eye.dcm ') and str(folder) not in text and '\n' not in text and NAME not in text
    return text


@pytest.mark.parametrize('syntax', [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian])
def test_uncompressed_colour_and_header(tmp_path: Path, syntax: uid.UID) -> None:
    (frame,) = frames_of(tmp_path, written(header(picture()), syntax=syntax, pixels=picture()))
    np.testing.assert_array_equal(frame.pixels, picture())
    assert (frame.laterality, frame.patient, frame.age, frame.sex, frame.camera) == ('R', 'P7', 61.0, 'F', 'Zeiss Visucam')
    assert (frame.modality, frame.bit_depth, frame.source_height, frame.source_width) == ('CFP', 8, 48, 64)


def test_planar_colour(tmp_path: Path) -> None:
    planes = np.ascontiguousarray(picture().transpose(2, 0, 1))
    (frame,) = frames_of(tmp_path, written(header(picture(), PlanarConfiguration=1), pixels=planes))
    np.testing.assert_array_equal(frame.pixels, picture())


def test_ybr_422_uncompressed_equals_pydicom(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(60, 200, 48 * 64 * 2, np.uint8)
    data = written(header(picture(), PhotometricInterpretation='YBR_FULL_422'), pixels=samples)
    (frame,) = frames_of(tmp_path, data)
    np.testing.assert_array_equal(frame.pixels, pydicom.pixels.pixel_array(io.BytesIO(data)))


@pytest.mark.parametrize('channels', [1, 3])
def test_rle_multi_frame(tmp_path: Path, channels: int) -> None:
    pixels = np.stack([picture(channels=channels), 255 - picture(channels=channels)])
    item = header(pixels, frames=2)
    written(item, pixels=pixels)
    item.compress(uid.RLELossless, generate_instance_uid=False)
    frames = frames_of(tmp_path, written(item, syntax=uid.RLELossless, data=item.PixelData))
    assert [frame.frame for frame in frames] == [0, 1]
    for frame, expected in zip(frames, pixels, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected if channels == 3 else np.dstack([expected] * 3))


def jpeg_file(pixels: np.ndarray, *, count: int = 1, **attributes: object) -> tuple[bytes, bytes]:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, 'JPEG', quality=92)
    many = np.stack([pixels] * count)
    item = header(many, frames=count, **attributes)
    data = encaps.encapsulate([stream.getvalue()] * count)
    return written(item, syntax=uid.JPEGBaseline8Bit, data=data), stream.getvalue()


@pytest.mark.parametrize('count', [1, 3])
def test_jpeg_equals_another_decoder(tmp_path: Path, count: int) -> None:
    data, stream = jpeg_file(picture(), count=count, PhotometricInterpretation='YBR_FULL_422')
    frames = frames_of(tmp_path, data)
    assert len(frames) == count
    for frame in frames:
        np.testing.assert_array_equal(frame.pixels, np.asarray(Image.open(io.BytesIO(stream))))
    conversion = pydicom.pixels.pixel_array(io.BytesIO(data), index=0, decoding_plugin='pillow')
    assert np.abs(frames[0].pixels.astype(int) - conversion).max() <= 1


def test_jpeg_grey_and_scaled(tmp_path: Path) -> None:
    data, _ = jpeg_file(picture(channels=1), PhotometricInterpretation='MONOCHROME1')
    (frame,) = frames_of(tmp_path, data)
    assert np.abs(255 - picture(channels=1).astype(int) - frame.pixels[:, :, 0]).mean() < 2
    big, _ = jpeg_file(picture(height=800, width=960), PhotometricInterpretation='YBR_FULL_422')
    (frame,) = frames_of(tmp_path, big, shorter_side=100)
    assert 200 <= frame.pixels.shape[0] < 400 and (frame.source_height, frame.source_width) == (800, 960)


def test_jpeg_that_is_no_ybr_takes_pydicoms_way(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, 'JPEG', quality=95, keep_rgb=True)
    item = header(picture(), PhotometricInterpretation='RGB')
    (frame,) = frames_of(tmp_path, written(item, syntax=uid.JPEGBaseline8Bit, data=encaps.encapsulate([stream.getvalue()])))
    assert np.abs(frame.pixels.astype(int) - picture()).mean() < 3


@pytest.mark.parametrize('bits', [10, 12, 16])
def test_deep_grey_is_cut_at_its_true_bits(tmp_path: Path, bits: int) -> None:
    deep = picture(channels=1).astype(np.uint16) << (bits - 8)
    (frame,) = frames_of(tmp_path, written(header(deep, bits=bits, sop=OCT), pixels=deep))
    np.testing.assert_array_equal(frame.pixels, np.dstack([picture(channels=1)] * 3))
    assert (frame.modality, frame.bit_depth) == ('OCT', bits)


def test_deep_colour(tmp_path: Path) -> None:
    deep = picture().astype(np.uint16) * 257
    (frame,) = frames_of(tmp_path, written(header(deep, sop=DEEP_PHOTO), pixels=deep))
    np.testing.assert_array_equal(frame.pixels, picture())


def test_monochrome1_is_inverted_and_grey_is_no_cfp(tmp_path: Path) -> None:
    grey = picture(channels=1)
    (frame,) = frames_of(tmp_path, written(header(grey, PhotometricInterpretation='MONOCHROME1'), pixels=grey))
    np.testing.assert_array_equal(frame.pixels[:, :, 0], 255 - grey)
    assert frame.modality == ''


@pytest.mark.parametrize('function', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
def test_window_equals_pydicoms(tmp_path: Path, function: str) -> None:
    deep = (picture(channels=1).astype(np.uint16) * 16)
    item = header(deep, bits=12, sop=OCT, WindowCenter=[1500, 9], WindowWidth=[1200, 9], VOILUTFunction=function)
    (frame,) = frames_of(tmp_path, written(item, pixels=deep))
    expected = pydicom.pixels.apply_windowing(deep, item) / 4095 * 255
    np.testing.assert_allclose(frame.pixels[:, :, 0], expected, atol=0.51)


def test_window_without_width_is_refused(tmp_path: Path) -> None:
    item = header(picture(channels=1), WindowCenter=10, WindowWidth=0)
    assert 'window' in refusal(tmp_path, written(item, pixels=picture(channels=1)))


def test_palette_colour(tmp_path: Path) -> None:
    index = np.tile(np.arange(64, dtype=np.uint8), (48, 1))
    item = header(index, PhotometricInterpretation='PALETTE COLOR')
    for i, name in enumerate(('Red', 'Green', 'Blue')):
        setattr(item, f'{name}PaletteColorLookupTableDescriptor', [256, 0, 16])
        table = (np.arange(256, dtype=np.uint16) * (i + 1) % 256) * 257
        setattr(item, f'{name}PaletteColorLookupTableData', table.tobytes())
    (frame,) = frames_of(tmp_path, written(item, pixels=index))
    assert frame.pixels[0, 50].tolist() == [50, 100, 150]


def functional(laterality: str, window: tuple[float, float] | None = None) -> Dataset:
    group, anatomy = Dataset(), Dataset()
    anatomy.FrameLaterality = laterality
    group.FrameAnatomySequence = [anatomy]
    if window:
        voi = Dataset()
        voi.WindowCenter, voi.WindowWidth = window
        group.FrameVOILUTSequence = [voi]
    return group


def test_laterality_from_functional_groups(tmp_path: Path) -> None:
    pixels = np.stack([picture(channels=1)] * 2)
    item = header(pixels, frames=2, sop=OCT, SharedFunctionalGroupsSequence=[functional('L')])
    del item.ImageLaterality
    assert [frame.laterality for frame in frames_of(tmp_path, written(item, pixels=pixels))] == ['L', 'L']
    item.PerFrameFunctionalGroupsSequence = [functional('R'), functional('L', (0.5, 2.0))]
    frames = frames_of(tmp_path, written(item, pixels=pixels))
    assert [frame.laterality for frame in frames] == ['R', 'L']
    assert set(np.unique(frames[1].pixels)) == {128, 255} and frames[0].pixels.max() < 255


@pytest.mark.parametrize(('text', 'age'), [('060Y', 60.0), ('018M', 1.5), ('010W', 70 / 365.25), ('100D', 100 / 365.25)])
def test_ages(text: str, age: float) -> None:
    assert dicom.years(text) == pytest.approx(age)


@pytest.mark.parametrize('text', ['', '60', 'Y', '-10Y', '0060Y', '60 Y'])
def test_no_ages(text: str) -> None:
    assert math.isnan(dicom.years(text))


def test_missing_words_are_missing(tmp_path: Path) -> None:
    item = header(picture(), ImageLaterality='B', PatientAge='', PatientSex='')
    del item.PatientID, item.Manufacturer
    (frame,) = frames_of(tmp_path, written(item, pixels=picture()))
    assert (frame.laterality, frame.sex, frame.patient, frame.camera) == ('', '', '', 'Visucam') and math.isnan(frame.age)


@pytest.mark.parametrize(('attributes', 'word'), [
    ({'Rows': 20000, 'Columns': 20000}, 'too large'),
    ({'NumberOfFrames': 2_000_000_000}, 'pictures'),
    ({'NumberOfFrames': 4000}, 'cut short'),
    ({'Rows': 0}, 'without a size'),
    ({'Rows': 1, 'Columns': 1}, 'too small'),
    ({'BitsAllocated': 32, 'BitsStored': 32, 'HighBit': 31}, '32 bits'),
    ({'PixelRepresentation': 1}, 'signed'),
    ({'SamplesPerPixel': 4}, '4 samples'),
    ({'SOPClassUID': '1.2.840.10008.5.1.4.1.1.2', 'Modality': 'CT'}, 'CT Image'),
    ({'SOPClassUID': '1.2.3.4', 'Modality': 'XX'}, 'modality XX'),
    ({'Columns': 100}, 'cut short'),
    ({'PhotometricInterpretation': 'NONSENSE'}, 'damaged'),
])
def test_hostile_headers(tmp_path: Path, attributes: dict, word: str) -> None:
    assert word in refusal(tmp_path, written(header(picture(), **attributes), pixels=picture()))


def test_truncated_files(tmp_path: Path) -> None:
    plain = written(header(picture()), pixels=picture())
    jpeg, _ = jpeg_file(picture(height=300, width=300), PhotometricInterpretation='YBR_FULL_422')
    for data in (plain, jpeg):
        for share in (0.05, 0.5, 0.9):
            assert 'cut short' in (text := refusal(tmp_path, data[:int(len(data) * share)])) or 'damaged' in text or 'no ophthalmic' in text


def test_jpeg_stream_larger_than_its_header_says(tmp_path: Path) -> None:
    data, stream = jpeg_file(picture(), PhotometricInterpretation='YBR_FULL_422')
    at = data.index(b'\xff\xc0')
    hostile = data[:at + 5] + b'\xff\xff\xff\xff' + data[at + 9:]
    assert 'not of the size' in refusal(tmp_path, hostile)
    assert dicom.stream_size(stream) == (48, 64)


def test_deflate_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom, 'MAX_FILE_BYTES', 1 << 20)
    pixels = np.zeros((1200, 1200, 3), np.uint8)
    assert 'expands' in refusal(tmp_path, written(header(pixels), syntax=uid.DeflatedExplicitVRLittleEndian, pixels=pixels))


def test_the_name_is_neither_kept_nor_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    data = written(header(picture(), PatientAge='060Y'), pixels=picture())
    (frame,) = frames_of(tmp_path, data)
    refusal(tmp_path, data[:-5000])
    seen = caplog.text + ''.join(capfd.readouterr()) + repr(frame)
    assert 'Sommersby' not in seen
    assert 'PatientName' not in pydicom.dcmread(io.BytesIO(data), specific_tags=dicom._TAGS)


def test_a_preamble_that_looks_like_tiff(tmp_path: Path) -> None:
    data = b'II*\x00' + written(header(picture()), pixels=picture())[4:]
    assert frames_of(tmp_path, data)[0].modality == 'CFP'


def seeds() -> list[bytes]:
    pixels = np.stack([picture(channels=1)] * 2)
    groups = header(pixels, frames=2, sop=OCT, SharedFunctionalGroupsSequence=[functional('L', (100, 50))])
    rle = header(picture())
    written(rle, pixels=picture())
    rle.compress(uid.RLELossless, generate_instance_uid=False)
    return [
        written(header(picture()), pixels=picture()), written(header(picture()), syntax=uid.ImplicitVRLittleEndian, pixels=picture()),
        written(groups, pixels=pixels), jpeg_file(picture(), PhotometricInterpretation='YBR_FULL_422')[0],
        written(rle, syntax=uid.RLELossless, data=rle.PixelData),
    ]


def test_a_damaged_file_does_not_spill_its_name_into_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = bytearray(written(header(picture()), pixels=picture()))
    at = data.index(b'\x08\x00\x16\x00UI')
    data[at + 7] = 2  # the first value now claims 512 bytes and more, the name among them
    with contextlib.suppress(readers.ReadError):
        frames_of(tmp_path, bytes(data))
    assert 'Sommersby' not in caplog.text
    with pytest.warns(UserWarning):
        pydicom.dcmread(io.BytesIO(bytes(data))).get('SOPClassUID')
    assert 'Sommersby' in caplog.text  # the library itself does


@FUZZ
@given(seed=st.sampled_from(seeds()), edits=st.lists(st.tuples(st.integers(132, 1100), st.integers(0, 255)), min_size=1, max_size=5),
       cut=st.sampled_from([0, 0, 1, 100, 9000]))
def test_mutated_files_give_pictures_or_a_reason(tmp_path: Path, seed: bytes, edits: list, cut: int) -> None:
    data = bytearray(seed)
    for at, value in edits:
        data[at % len(data)] = value
    try:
        frames = frames_of(tmp_path, bytes(data[:len(data) - cut]))
    except readers.ReadError as error:
        assert error.reason and NAME not in str(error)
        return
    assert frames and all(frame.pixels.dtype == np.uint8 and frame.pixels.shape[2:] == (3,) for frame in frames)


@settings(parent=FUZZ, max_examples=60)
@given(data=st.binary(max_size=300))
def test_random_bytes_after_the_preamble(tmp_path: Path, data: bytes) -> None:
    refusal(tmp_path, bytes(128) + b'DICM' + data)


@pytest.mark.skipif(not REAL.is_dir(), reason='no ophthalmic DICOM sample beside the project')
def test_all_sample_files_read_with_true_headers_and_pixels() -> None:
    with (REAL / 'labels.csv').open(newline='') as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 23
    for row in rows:
        frames = readers.read(REAL / row['file'])
        assert len(frames) == int(row['frames'])
        item = pydicom.dcmread(REAL / row['file'])
        for frame in frames:
            assert (frame.laterality, frame.sex, frame.patient) == (row['laterality'], row['sex'], row['patient_id'])
            assert frame.age == dicom.years(row['age']) or (math.isnan(frame.age) and not row['age'])
            np.testing.assert_array_equal(frame.pixels, independent(item, frame=frame.frame))


def independent(item: Dataset, *, frame: int) -> np.ndarray:
    """Pixels by Pillow for JPEG and by plain numpy or pydicom else."""
    if item.file_meta.TransferSyntaxUID == uid.JPEGBaseline8Bit:
        return np.asarray(Image.open(io.BytesIO(encaps.get_frame(item.PixelData, frame, number_of_frames=1))))
    values = pydicom.pixels.pixel_array(item, index=frame)
    if not item.file_meta.TransferSyntaxUID.is_encapsulated:
        raw = np.frombuffer(item.PixelData, f'<u{item.BitsAllocated // 8}')[:int(item.get('NumberOfFrames') or 1) * values.size]
        np.testing.assert_array_equal(raw.reshape(-1, *values.shape)[frame], values)
    values = (values >> (item.BitsStored - 8)).astype(np.uint8)
    return values if values.ndim == 3 else np.dstack([values] * 3)


@pytest.mark.skipif(not OTHER.is_dir(), reason='no other medical files beside the project')
@pytest.mark.parametrize('path', sorted(OTHER.glob('*')) if OTHER.is_dir() else [], ids=lambda path: path.name)
def test_other_medical_files_are_refused(path: Path) -> None:
    with pytest.raises(readers.ReadError, match='no ophthalmic|not a PNG'):
        readers.read(path)
