"""Prints each measurement with its bound."""


class Report:
    """Prints one line per check and counts them."""

    def __init__(self):
        self.num_passed = 0
        self.num_failed = 0

    def below(self, what, value, bound):
        """Passes if `value <= bound`; NaN fails."""
        self._line(value <= bound, f"{what}: {value:.3g} (at most {bound:.3g})")

    def same(self, what, ours, theirs):
        """Passes if both sides are equal."""
        if ours == theirs:
            self._line(True, f"{what}: identical")
        else:
            self._line(False, f"{what}: differs\n        oss-run   {ours}\n        reference {theirs}")

    def holds(self, what, condition, detail):
        """Passes if `condition` is true."""
        self._line(bool(condition), f"{what}: {detail}")

    def failed(self, what, why):
        self._line(False, f"{what}: {why}")

    def _line(self, passed, text):
        if passed:
            self.num_passed += 1
        else:
            self.num_failed += 1
        print(f"  {'pass' if passed else 'FAIL'}  {text}", flush=True)
