"""Sphinx builds the pages of this folder: `make docs`."""

project = "A template of a machine-learning project"
author = "the template's maintainers"
extensions = ["myst_parser", "sphinxcontrib.mermaid"]
myst_fence_as_directive = ["mermaid"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
nitpicky = True
