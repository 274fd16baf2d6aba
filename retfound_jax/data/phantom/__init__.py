"""Photographs of eyes that do not exist, drawn by our own code with every structure known to the pixel.

`config` holds the parameters, `patient` who the people are, `draw_*` one structure each, `render` the photograph.
"""
