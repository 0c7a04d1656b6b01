"""What optimize() and the compiler back end did."""
import collections

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
