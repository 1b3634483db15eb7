"""HTML pages from templates/: one file each, nothing loaded from elsewhere, all text escaped."""

from typing import Any


def page(template: str, **values: Any) -> str:
    """The template filled in; it may include `page.css`.

    Args:
        template: Name in templates/.
        values: What the template names.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("callboard.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(values)
