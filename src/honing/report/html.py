"""A comparison → one self-contained HTML page that runs nothing but its own script.

A model's answer is untrusted text: Jinja2 escapes every expression, hidden characters are shown,
and a content-security policy names the page's own style and script by their hashes, so that
nothing else can run or be fetched even if an answer got out of its box.
"""

from __future__ import annotations

import base64
import hashlib

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from honing.report.comparison import Comparison
from honing.report.names import Language
from honing.report.page import make_page
from honing.report.texts import Wording
from honing.report.words import show_hidden
from honing.version import VERSION


def render_page(comparison: Comparison, language: Language = "en") -> str:
    """The whole page as one text; the same for the same comparison."""
    environment = _environment()
    styles = environment.get_template("styles.css.j2").render()
    script = environment.get_template("script.js.j2").render()
    page: str = environment.get_template("report.html.j2").render(
        t=Wording(language),
        page=make_page(comparison, language),
        policy=content_security_policy(styles, script),
        styles=Markup(styles),  # ours, from the templates beside this file
        script=Markup(script),
        version=VERSION,
    )
    # The last word over all of it: no text, wherever it stands, turns or hides what is around it.
    return show_hidden(page)


def content_security_policy(styles: str, script: str) -> str:
    """Nothing is allowed but one style and one script, by their hashes (CSP level 2)."""
    return "; ".join(
        (
            "default-src 'none'",
            f"style-src '{_hash(styles)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("honing.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
