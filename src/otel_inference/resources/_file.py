"""Small files of the kernel, read as a whole; one that is missing or strange reads as `None`."""

from __future__ import annotations


def text(path: str) -> str | None:
    """The content of `path`; `None` if it cannot be read."""
    try:
        # Unbuffered, because files of /proc and /sys are made when read: 3 system calls instead of 6.
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 - half the cost of a Path, and read each second
            return file.read().decode()
    except (OSError, ValueError):
        return None


def number(path: str) -> int | None:
    """The one whole number in `path`; `None` for anything else, such as the word `max`."""
    try:
        return int(text(path) or "")
    except ValueError:
        return None


def numbers(path: str) -> dict[str, int]:
    """The whole numbers of a file of lines `name number`, by name; other lines are left out."""
    found: dict[str, int] = {}
    for line in (text(path) or "").splitlines():
        name, _, value = line.partition(" ")
        try:
            found[name.rstrip(":")] = int(value.removesuffix(" kB"))
        except ValueError:
            continue
    return found
