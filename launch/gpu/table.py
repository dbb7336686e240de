"""The rows of a check: what was looked at, whether it held, and the figure."""
import pathlib, sys

OK, BAD, NONE = "ok", "FAILED", "not measured"


class Table:
    """The rows. Of a dry run, what was done is kept and figures are not: they are a CPU's."""

    def __init__(self, dry: bool, out: pathlib.Path):
        self.rows, self.dry, self.out = [], dry, str(out.resolve())

    def add(self, check: str, result: str, status: str = OK, **figures):
        if self.dry and status == NONE:
            result, figures = "dry run", {}
        result = result.replace(self.out, "OUT")  # a path of one machine means nothing elsewhere
        self.rows.append({"check": check, "status": status, "result": result, **figures})
        print(f"{status:12} {check}: {result}", file=sys.stderr, flush=True)
