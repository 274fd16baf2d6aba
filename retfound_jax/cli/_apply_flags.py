"""The flags that `predict` and `embed` share."""

from __future__ import annotations

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Declares the flags of both verbs."""
    flags.DEFINE_string('weights', None, 'run directory, file or directory of weights, or hf:owner/name', flag_values=values, required=True)
    source = 'folder of photographs (PNG, JPEG, TIFF, DICOM), CSV of their paths, or dataset directory'
    flags.DEFINE_string('source', None, source, flag_values=values, required=True)
    flags.DEFINE_string('out', None, 'file to write: .csv or .parquet', flag_values=values, required=True)
    flags.DEFINE_string('image_column', '', "column of the CSV with the paths, relative to the CSV's folder", flag_values=values)
    flags.DEFINE_list('keep', [], 'columns of the CSV or dataset to carry over', flag_values=values)
    flags.DEFINE_string('split', '', 'of a dataset; left out: all', flag_values=values)
    cut = 'fov: the field of view is cut out as ingest does; none: photographs are taken as they are'
    flags.DEFINE_enum('crop', 'fov', ['fov', 'none'], cut, flag_values=values)
    kept = "shorter side kept of the field of view [px], as ingest's --size; 0: 256, or more where the image size needs it"
    flags.DEFINE_integer('size', 0, kept, flag_values=values, lower_bound=0)
    flags.DEFINE_integer('image_size', None, 'another input size [px]; positions are resampled', flag_values=values, lower_bound=1)
    flags.DEFINE_integer('batch_size', 32, 'photographs computed at once', flag_values=values, lower_bound=1)
    flags.DEFINE_list('classes', [], 'names of the outputs, where the weights carry none', flag_values=values)
    flags.DEFINE_enum('pool', None, ['mean', 'cls', 'mean_normed'], 'how an encoder without a head pools its tokens', flag_values=values)
    flags.DEFINE_bool('norm_twice', None, "apply fc_norm twice, as RETFound's code of 2025 does", flag_values=values)
    flags.DEFINE_enum('checkpoint', 'best', ['best', 'latest'], 'of a run directory', flag_values=values)
    flags.DEFINE_bool('overwrite', False, 'replace the file that --out names', flag_values=values)
