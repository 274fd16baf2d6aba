"""How the model was trained: curves of pretraining and of the task, and what pretraining can redraw."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_jax.report import figures, time_spent
from retfound_jax.report.blocks import Heading, Picture, Pictures, Section, Text
from retfound_jax.report.collect import Collected, Curve, TrainingRun
from retfound_jax.report.figures import data_uri
from retfound_jax.report.words import clean, duration, metric_name, number, plural, significant

_TRIPLES = 4
_HEAVIEST = 1_200_000  # [bytes] of all triples together, so that the page stays under 3 MB
_LOSS, _RATE = 'loss', 'learning_rate'
_CHOSEN_BY = ('AUROC', 'kappa_quadratic', 'MAE')  # validation metrics worth a curve, the first there is


def curves_section(found: Collected) -> Section:
    """Loss, learning rate and validation metric over the steps."""
    blocks: list[Any] = [Heading('Pretraining on photographs without labels')]
    blocks += _curves(found.pretrain, evaluated=None) if found.pretrain else [Text('No pretraining run was given.', 'quiet')]
    blocks.append(Heading('Training on the task'))
    blocks += (
        _curves(found.run, evaluated=found.predictions.step if found.predictions else None)
        if found.run
        else [Text('This is a pretraining run: no task was trained.', 'quiet')]
    )
    return Section(id='training', title='How it was trained', blocks=tuple(blocks))


def redrawn_section(pretrain: TrainingRun | None, *, photographs: bool) -> Section:
    """Photograph, what was shown of it, and the reconstruction, side by side."""
    triples = _light(pretrain.triples) if pretrain else ()
    if pretrain is None:
        blocks: tuple[Any, ...] = (Text('No pretraining run was given.', 'quiet'),)
    elif not photographs:
        blocks = (Text('Not shown: the report was made without photographs.', 'quiet'),)
    elif not triples:
        blocks = (Text('The pretraining run holds no reconstructions.', 'quiet'),)
    else:
        share = _mask_ratio(pretrain.config)
        hidden = f'{100 * share:.0f} % of' if share else 'most of'
        intro = (
            f'In pretraining the model sees a photograph with {hidden} its patches hidden and has to redraw them. Vessels and disc in '
            'the right place show that it has learned what an eye looks like; fine detail is lost by design, and what it draws is a guess, '
            'not a finding.'
        )
        blocks = (Text(intro), Pictures(items=tuple(_triple_pictures(triples)), size='triple'))
    return Section(id='reconstructions', title='What pretraining learned', blocks=blocks)


def _curves(run: TrainingRun, *, evaluated: int | None) -> list[Any]:
    if not run.curves:
        return [Text('The run has logged no numbers yet.', 'quiet')]
    pictures = [picture for picture in (_loss(run.curves), _validation(run.curves, evaluated=evaluated), _rate(run.curves)) if picture]
    blocks = [Text(_told(run)), *([Pictures(items=tuple(pictures))] if pictures else [])]
    return [*blocks, time_spent.table(run.account)] if run.account and run.account.total else blocks


def _told(run: TrainingRun) -> str:
    last = max(int(curve.steps[-1]) for curve in run.curves.values())
    planned = run.config.get('steps')
    unfinished = f' of {significant(planned, digits=6)} planned: it is not finished' if isinstance(planned, int) and planned > last else ''
    data = run.config.get('data')
    batch = data.get('batch_size') if isinstance(data, Mapping) else None
    images = f' of {plural(batch, "image")}' if isinstance(batch, int) else ''
    return f'{plural(last, "step")}{images}{unfinished}, in {duration(run.seconds)}.'


def _loss(curves: Mapping[str, Curve]) -> Picture | None:
    shown = [(name, curves[key]) for name, key in (('training', _LOSS), ('validation', _held_out(curves, _LOSS))) if key in curves]
    if not shown:
        return None
    name, curve = shown[0]
    first, last = number(float(curve.values[0])), number(float(curve.values[-1]))
    words = f'The {name} loss went from {first} to {last}.'
    return figures.curve_chart(shown, title='Loss', y='loss', alt=f'Loss over the steps. {words}', caption=f'{words} Lower is better.')


def _validation(curves: Mapping[str, Curve], *, evaluated: int | None) -> Picture | None:
    metric = next((name for name in _CHOSEN_BY if _held_out(curves, name) in curves), None)
    if metric is None:
        return None
    curve = curves[_held_out(curves, metric)]
    lower = metric == 'MAE'
    best = int(curve.values.argmin() if lower else curve.values.argmax())
    used = '; that checkpoint is the one evaluated' if evaluated == curve.steps[best] else ''
    words = f'Best {number(float(curve.values[best]), metric=metric)} at step {curve.steps[best]}{used}.'
    name = metric_name(metric)
    return figures.curve_chart(
        [('validation', curve)], title=f'{name}, validation', y=name, alt=f'{name} on validation. {words}', caption=words
    )


def _rate(curves: Mapping[str, Curve]) -> Picture | None:
    if _RATE not in curves:
        return None
    highest = significant(float(curves[_RATE].values.max()))
    return figures.curve_chart(
        [('learning rate', curves[_RATE])],
        title='Learning rate',
        y='learning rate',
        alt=f'Learning rate over the steps, at most {highest}.',
        caption=f'At most {highest}.',
    )


def _held_out(curves: Mapping[str, Curve], name: str) -> str:
    """The logged name of a validation number, such as `val/loss`."""
    return next((key for key in curves if key.partition('/')[2] == name), '')


def _mask_ratio(config: Mapping[str, Any]) -> float | None:
    task = config.get('task')
    model = task.get('model') if isinstance(task, Mapping) else None
    share = model.get('mask_ratio') if isinstance(model, Mapping) else None
    return share if isinstance(share, float) else None


def _light(triples: tuple[Any, ...]) -> tuple[Any, ...]:
    kept, spent = [], 0
    for triple in triples[:_TRIPLES]:
        spent += len(triple.photograph) + len(triple.masked) + len(triple.reconstruction)
        if spent <= _HEAVIEST:
            kept.append(triple)
    return tuple(kept)


def _triple_pictures(triples: tuple[Any, ...]) -> list[Picture]:
    stages = (('photograph', 'Photograph'), ('masked', 'What the model saw'), ('reconstruction', 'What it drew'))
    return [
        Picture(src=data_uri(getattr(triple, name), mime='image/png'), alt=f'{words}, example {i}.', caption=clean(words))
        for i, triple in enumerate(triples, start=1)
        for name, words in stages
    ]
