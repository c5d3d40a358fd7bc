"""What the wheel holds: rtl/, sim/ and models/ stand beside ternbin/ and are imported as its subpackages.

Packages are found, not listed, so that a new folder with an __init__.py is never forgotten; all else is in pyproject.toml.
"""

from setuptools import find_packages, setup

PARTS = ("rtl", "sim", "models")
LINKS = [
    name for part in PARTS for name in (f"ternbin.{part}", f"ternbin.{part}.*")
]  # for editors, made by `make setup`

setup(
    packages=[
        *find_packages(include=["ternbin", "ternbin.*"], exclude=LINKS),
        *(f"ternbin.{part}" for part in PARTS),
        *(f"ternbin.{part}.{name}" for part in PARTS for name in find_packages(part)),
    ],
    package_dir={"ternbin": "ternbin", **{f"ternbin.{part}": part for part in PARTS}},
)
