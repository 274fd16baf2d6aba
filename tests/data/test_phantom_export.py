"""`retfound phantom`: the folder it writes."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from retfound_jax.cli import main as front
from retfound_jax.core.config import from_dict
from retfound_jax.core.errors import UsageError
from retfound_jax.core.files import read_json
from retfound_jax.data.phantom.config import PhantomConfig
from retfound_jax.data.phantom.export import export
from retfound_jax.data.phantom.render import MASKS, draw_eye


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_the_verb_writes_photographs_masks_and_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / 'phantom'
    assert front.main(['phantom', f'--out={out}', '--patients=3', '--size=64', '--masks', '--format=png', '--set=missing_fraction=1']) == 0
    assert '6 photographs of 3 patients' in capsys.readouterr().out
    with open(out / 'labels.csv', encoding='utf-8', newline='') as file:
        rows = list(csv.DictReader(file))
    assert [row['image'] for row in rows][:2] == ['P000000_R.png', 'P000000_L.png']
    assert all(row['age'] == row['sex'] == '' and row['country'] for row in rows)
    config = from_dict(PhantomConfig, read_json(out / 'phantom.json'))
    assert config.missing_fraction == 1 and config.image_size == 64
    eye = draw_eye(config, 1)
    assert (cv2.imread(str(out / 'images' / 'P000000_L.png'))[..., ::-1] == eye.image).all()
    for name in MASKS:
        mask = cv2.imread(str(out / 'masks' / f'P000000_L_{name}.png'), cv2.IMREAD_GRAYSCALE)
        assert (mask == eye.masks[name].astype(np.uint8) * 255).all()


def test_any_number_of_workers_writes_the_same_bytes(tmp_path: Path) -> None:
    config, heard = PhantomConfig(patients=2, image_size=48), []
    export(config, tmp_path / 'one', tell=heard.append)
    export(config, tmp_path / 'two', workers=2)
    assert sum(heard) == 4
    assert _files(tmp_path / 'one') == _files(tmp_path / 'two')


def test_a_folder_with_something_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / 'mine.txt').write_text('mine')
    with pytest.raises(UsageError, match='not an empty folder'):
        export(PhantomConfig(patients=1), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ['mine.txt']
