"""What optimize() and the compiler back end did."""
import collections

from .._library import BadArgument

_KINDS = ("exact", "near", "default")


def check_accept(least):
    if least not in _KINDS:
        raise BadArgument(f"accept: there is no kind of match '{least}' ({', '.join(_KINDS)})")
    return least


def accepted(match, least):
    """Whether a match is as good as `least`: "exact" (or of a range that was tuned), "near" or "default"."""
    return match.kind == "dynamic" or match.kind in _KINDS[:_KINDS.index(least) + 1]


Row = collections.namedtuple("Row", "name op match reason")


class Report(list):
    """Rows: `name` of the module or node, `op` that could stand for it (with its epilogue), the `match` that does or None,
    and the `reason`."""

    def add(self, name, op, match=None, reason=""):
        self.append(Row(name, op, match, match.reason if match is not None else reason))

    @property
    def replaced(self):
        return [row.name for row in self if row.match is not None]

    def __str__(self):
        return "\n".join(f"{row.name}: kgen.{row.op}, {row.reason}" if row.match is not None
                         else f"{row.name}: left, {row.reason}".partition("\n  ")[0] for row in self)
