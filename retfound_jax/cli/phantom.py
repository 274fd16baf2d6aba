"""`retfound phantom`: a folder of drawn photographs with labels.csv, to try everything else on."""

from __future__ import annotations

from absl import flags

SUMMARY = 'drawn photographs of the fundus, with labels and exact masks'


def define(values: flags.FlagValues) -> None:
    """The flags of this verb."""
    flags.DEFINE_string('out', None, 'the folder to write: images/, labels.csv, phantom.json; it must be new or empty', flag_values=values)
    flags.DEFINE_integer('patients', 300, 'how many patients, two eyes each', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('visits', 1, 'photographs of each eye, years apart; some eyes get worse', lower_bound=1, flag_values=values)
    flags.DEFINE_integer('seed', 0, 'the same seed draws the same photographs', flag_values=values)
    flags.DEFINE_integer('size', 256, 'width and height [px]', lower_bound=32, upper_bound=2048, flag_values=values)
    flags.DEFINE_enum('format', 'jpg', ['jpg', 'png'], 'of the images', flag_values=values)
    flags.DEFINE_boolean('masks', False, 'also write masks/NAME_STRUCTURE.png for every structure and lesion', flag_values=values)
    flags.DEFINE_integer('workers', 1, 'processes that draw', lower_bound=1, flag_values=values)
    flags.DEFINE_multi_string('set', [], 'field=value: any other field of PhantomConfig, such as glaucoma=0.4', flag_values=values)
    flags.mark_flag_as_required('out', flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Draws and writes."""
    from retfound_jax.core.config import override
    from retfound_jax.core.progress import bar
    from retfound_jax.data.phantom.config import PhantomConfig
    from retfound_jax.data.phantom.export import export

    config = PhantomConfig(seed=values.seed, patients=values.patients, image_size=values.size, visits=values.visits)
    config = override(config, values['set'].value)
    photographs = 2 * config.patients * config.visits
    with bar(photographs, desc='drawing') as progress:
        labels = export(config, values.out, kind=values.format, masks=values.masks, workers=values.workers, tell=progress.update)
    print(f'{photographs} photographs of {config.patients} patients: {labels.parent / "images"}, {labels}')
