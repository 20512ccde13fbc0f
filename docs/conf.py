"""The site of `make docs`. Its pages are the repository's own files, so that GitHub shows the same ones."""

import importlib.metadata
import os
import re

from docutils import nodes
from sphinx import addnodes

project = "cfg_jax"
author = copyright = "the cfg_jax authors"
release = importlib.metadata.version("cfg_jax")
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode", "sphinx_external_toc"]
external_toc_path = "docs/_toc.yml"
include_patterns = ["*.md", "docs/**", "experiments/**"]
exclude_patterns = ["_site", ".*", "runs", "data"]

html_theme = "sphinx_book_theme"
html_title = "cfg_jax"
html_theme_options = {"show_toc_level": 2, "navbar_persistent": []}
html_static_path = ["site.css"]
html_css_files = ["site.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = os.environ.get("CFG_JAX_NOTEBOOKS", "cache")  # "off" builds the site in half a minute
nb_execution_timeout = 600
nb_execution_raise_on_error = True

add_module_names = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True


def plain(app, what, name, obj, options, lines):
    """Docstrings are plain text with names in backticks: what reStructuredText would take for markup is escaped."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(f"`{part}`" if part[:1] == "`" else re.sub(r"([*|_\\])", r"\\\1", part) for part in parts)


def short(app, what, name, obj, options, signature, returned):
    """Shapes as the code writes them."""
    return tuple(text and re.sub(r"\bjaxlib\._jax\.Array\b", "Array", text) for text in (signature, returned))


def opened(app, doctree, docname):
    """A page of ours with sliders is opened, where Sphinx would offer a file to save."""
    for node in list(doctree.findall(addnodes.download_reference)):
        if node.get("filename", "").endswith(".html"):
            uri = "../" * docname.count("/") + "_downloads/" + node["filename"]
            node.replace_self(nodes.reference("", "", *node.children, refuri=uri, internal=True))


def setup(app):
    app.connect("autodoc-process-docstring", plain)
    app.connect("autodoc-process-signature", short)
    app.connect("doctree-resolved", opened)
