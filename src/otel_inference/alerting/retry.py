"""How often a failed alert is sent again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Waits that double, each cut short by chance so that many processes do not come back at once.

    With the defaults an alert is tried for five to eight minutes.
    """

    first_s: float = 1.0
    """Wait after the first failure, before it is cut."""
    longest_s: float = 60.0
    """No wait is longer."""
    attempts: int = 15
    """Tries of one alert."""
    age_s: float = 600.0
    """An alert that is older, for it had to queue behind others, is tried only once."""

    def delay_s(self, failures: int, chance: float) -> float:
        """How long to wait after so many failures of one alert: the whole wait, or down to half of it.

        Args:
            failures: At least 1.
            chance: From 0 to 1, drawn anew each time.

        >>> [Retry().delay_s(failures, chance=0.0) for failures in (1, 2, 3, 7)]
        [1.0, 2.0, 4.0, 60.0]
        >>> Retry().delay_s(1, chance=1.0)
        0.5
        """
        return min(self.first_s * 2.0 ** (failures - 1), self.longest_s) * (1.0 - chance / 2)

    def gives_up(self, failures: int, age_s: float) -> bool:
        """Whether an alert that failed so often, and was found so long ago, is not worth another try.

        >>> Retry().gives_up(14, 540.0), Retry().gives_up(15, 540.0), Retry().gives_up(1, 601.0)
        (False, True, True)
        """
        return failures >= self.attempts or age_s > self.age_s
