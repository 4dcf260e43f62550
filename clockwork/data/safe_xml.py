"""Parsing XML of unknown origin: nothing in it is executed, expanded or fetched."""

from typing import Any

from clockwork.optional import require


def parse_xml(content: bytes) -> Any:
    """Parse an XML document with ``lxml.etree``, and return its root element.

    Raises:
        ValueError: if it is truncated or not XML, or has a document type, which could define entities.
        ImportError: if lxml is not installed; it is in the extra ``[experiments]``.
    """
    etree = require("lxml.etree")
    refusal = "it has a document type, which is not read: remove it"
    if b"<!DOCTYPE" in content.replace(b"\0", b""):  # in UTF-16 too; found before anything can be expanded
        raise ValueError(refusal)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        root = etree.fromstring(content, parser)
    except etree.XMLSyntaxError as error:
        raise ValueError(f"it is truncated or not XML: {' '.join(error.msg.split())}") from None
    if root.getroottree().docinfo.doctype:
        raise ValueError(refusal)  # in an encoding that hides it from the search above
    return root


def numbers_of(element: Any, names: tuple[str, ...]) -> tuple[float, ...]:
    """Read attributes of an element as numbers.

    Raises:
        ValueError: if one is missing or not a number.
    """
    try:
        return tuple([float(element.get(name)) for name in names])
    except (TypeError, ValueError):
        given = ", ".join(f"{name}={element.get(name)!r}" for name in names)
        raise ValueError(f"the attributes {', '.join(names)} of {element.tag} must be numbers, got {given}") from None
