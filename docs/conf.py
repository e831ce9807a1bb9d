"""Sphinx configuration: pages in Markdown, the API from docstrings."""

from elbowroom import __version__

project = "Elbowroom"
author = "The Elbowroom developers"
release = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
html_theme = "furo"
html_title = "Elbowroom"
napoleon_google_docstring = False
autodoc_typehints = "none"
autodoc_member_order = "bysource"
myst_heading_anchors = 2
myst_enable_extensions = ["dollarmath"]
