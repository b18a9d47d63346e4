"""A list of images in, its rows as text and the files that they name out; what the rows mean is each program's own."""

import unicodedata


def nfc(text: str) -> str:
    """A text in Unicode's composed form, in which all of a list is compared: some systems decompose é."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
