"""What visitors see."""

from html import escape


def page(summary):
    items = "".join(f"<li>{escape(visitor)}</li>" for visitor in summary["visitors"])
    return f"<!doctype html><title>Guestbook</title><h1>{summary['total']} visitors</h1><ul>{items}</ul>"
