"""Pressure stall information: how long tasks waited for a resource.

The format is that of the kernel's `Documentation/accounting/psi.rst`; averages there are in percent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_inference.resources import _file
from otel_inference.resources.reading import Pressure

if TYPE_CHECKING:
    from otel_inference.resources.cgroup import ControlGroups


def pressure(groups: ControlGroups, resource: str) -> Pressure | None:
    """Pressure on `resource` in the process's own control group, else on the whole machine.

    Args:
        groups: Where the process is; its root is read for the machine's figures too.
        resource: `cpu` or `memory`.
    """
    for group in groups.unified()[:1]:
        own = parsed(_file.text(f"{group.path}/{resource}.pressure"), is_own_group=True)
        if own is not None:
            return own
    return parsed(_file.text(f"{groups.root}/proc/pressure/{resource}"), is_own_group=False)


def parsed(text: str | None, *, is_own_group: bool) -> Pressure | None:
    """The averages over ten seconds in `text`; `None` if it has none.

    >>> parsed("some avg10=12.50 avg60=3.00 avg300=0.00 total=9", is_own_group=True).some_avg10_ratio
    0.125
    """
    ratios: dict[str, float] = {}
    for line in (text or "").splitlines():
        kind, _, rest = line.partition(" avg10=")
        try:
            ratios[kind] = float(rest.partition(" ")[0]) / 100
        except ValueError:
            continue
    if "some" not in ratios:
        return None
    return Pressure(some_avg10_ratio=ratios["some"], full_avg10_ratio=ratios.get("full"), is_own_group=is_own_group)
