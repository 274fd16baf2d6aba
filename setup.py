"""Package metadata and extras. Exact versions are in launch/requirements.lock; these are the ranges the code was written for."""

from __future__ import annotations

import ast
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent

REQUIRES = [
    # the stack: jax 0.10 is the newest for Python 3.11, 0.12 for 3.12 and later
    'jax>=0.10,<0.13',
    'flax>=0.11.2,<0.13',
    'optax>=0.2.8',
    'orbax-checkpoint>=0.12',
    'absl-py>=2.5',
    # datasets and loading
    'grain>=0.2.18',
    'array_record>=0.8.3',
    'tensorflow-datasets>=4.9.10',
    'importlib_resources',  # imported by tensorflow-datasets, not declared there
    'protobuf',
    'fsspec>=2024.6',  # object stores; etils brings it
    'filelock',  # jax bounds its cache of compiled programs with it, and does not declare it
    # images
    'numpy>=2.0',
    'opencv-python-headless>=4.10',
    'pillow>=11',
    'simplejpeg>=1.8',
    'pydicom>=3.0',
    'pylibjpeg>=2.0',
    'pylibjpeg-libjpeg>=2.3',
    # weights of other libraries
    'safetensors>=0.5',
    'ml_dtypes>=0.5',
    # tables, metrics, pages
    'scipy>=1.14',
    'scikit-learn>=1.6',
    'pyarrow>=18',
    'tensorboardX>=2.6',
    'jinja2>=3.1',
    'matplotlib>=3.9',
    'tqdm>=4.66',
]

EXTRAS = {
    'beam': ['apache-beam>=2.77,<3'],  # ingest on many machines
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]'],
    'plan': ['jax[tpu]'],  # for its libtpu, of the version that goes with jax: it compiles for TPUs that are not there
    's3': ['s3fs>=2024.6'],  # datasets and runs in s3://
    'gcs': ['gcsfs>=2024.6'],  # and in gs://
    'hub': ['huggingface_hub>=1.0'],  # weights by a name of the Hub
    'convert': ['torch>=2.6'],  # weights saved by a PyTorch before 1.6; later ones are read without it
    'dev': ['chex', 'huggingface_hub>=1.0', 'hypothesis', 'pytest>=8', 'pytest-xdist', 'ruff', 'setuptools>=77'],
}


def read_version() -> str:
    """`__version__` of the package, read without importing it: at build time its dependencies are not there yet."""
    tree = ast.parse((ROOT / 'retfound_jax' / '__init__.py').read_text(encoding='utf-8'))
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__version__':
            return ast.literal_eval(node.value)
    raise SystemExit('retfound_jax/__init__.py holds no __version__')


setup(
    name='retfound-jax',
    version=read_version(),
    description='Foundation models for retinal images in JAX: pretrain, adapt, evaluate by patient and by subgroup',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    license_files=['LICENSE'],
    python_requires='>=3.11',
    packages=find_packages(include=['retfound_jax', 'retfound_jax.*', 'experiments', 'experiments.*']),
    package_data={'retfound_jax.report': ['*.html', '*.css', '*.js']},
    install_requires=REQUIRES,
    extras_require=EXTRAS,
    entry_points={'console_scripts': ['retfound = retfound_jax.cli.main:main']},
    classifiers=[
        'Programming Language :: Python :: 3 :: Only',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Medical Science Apps.',
    ],
)
