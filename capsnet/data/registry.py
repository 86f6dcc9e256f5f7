"""Registry of data sets. The function of the same name in `capsnet.data.sources` makes one."""

import re
from typing import NamedTuple


class DataSet(NamedTuple):
    title: str  # in reports
    noun: str  # what a picture shows, in figures and reports; its plural ends in s
    handwriting: bool = True  # a person's picture is prepared as MNIST prepares its digits


DATA_SETS = {
    "mnist": DataSet("MNIST", "digit"),
    "fashion_mnist": DataSet("Fashion-MNIST", "article", handwriting=False),
    "kmnist": DataSet("Kuzushiji-MNIST", "character"),
    "qmnist": DataSet("QMNIST", "digit"),
    "emnist_letters": DataSet("the letters of EMNIST", "letter"),
    "emnist_balanced": DataSet("the characters of EMNIST", "character"),
    "svhn": DataSet("SVHN", "digit", handwriting=False),
    "scikit_learn": DataSet("the digits of scikit-learn", "digit"),
    "folder": DataSet("pictures of a folder", "object", handwriting=False),
}


def worded(text: str, noun: str) -> str:
    """The text with the noun in place of "digit": "an article", "Letters"."""
    if noun[0] in "aeiou":
        text = re.sub(r"\b([Aa]) (?=digits?\b)", r"\1n ", text)
    text = re.sub(r"\bdigit(?=s?\b)", noun, text)
    return re.sub(r"\bDigit(?=s?\b)", noun.capitalize(), text)
