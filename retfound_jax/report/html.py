"""Blocks to one HTML page. Jinja escapes every string; a content security policy forbids scripts and every request."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2

from retfound_jax.report.blocks import Section
from retfound_jax.report.words import clean

_FOLDER = Path(__file__).resolve().parent


def render(title: str, *, subtitle: str, sections: tuple[Section, ...], kind: str = 'Report of a research model') -> str:
    """The whole page as text; `kind` says above the title what it is."""
    css = (_FOLDER / 'style.css').read_text(encoding='utf-8')
    return _environment().get_template('template.html').render(title=title, subtitle=subtitle, sections=sections, css=css, kind=kind)


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: value if hasattr(value, '__html__') or not isinstance(value, str) else clean(value),
        trim_blocks=True,
        lstrip_blocks=True,
    )
