"""Every dataset of the registry as a TFDS builder: import `builders` of this package, and `tfds.builder('aptos2019', ...)` knows it.

    import tensorflow_datasets as tfds
    import retfound_jax.registry.tfds.builders
    builder = tfds.builder('aptos2019', data_dir='tfds')
    builder.download_and_prepare(file_format='array_record', download_config=tfds.download.DownloadConfig(manual_dir='data'))

`manual_dir` is the data folder of `retfound datasets`: the dataset lies in data/aptos2019. No TensorFlow is needed. What is prepared
can be read without the import.
"""
