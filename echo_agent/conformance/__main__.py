"""``python -m echo_agent.conformance FILE...``: run conformance tests with pytest and print the table of what passed.

Whatever else is given goes to pytest. The exit code is pytest's.
"""

from __future__ import annotations

import sys

import pytest

from echo_agent.conformance.table import Tally


def main(arguments: list[str]) -> int:
    """Run and print."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        return 0 if arguments else 2
    tally = Tally()
    code = pytest.main(["-q", *arguments], plugins=[tally])
    print(f"\n{tally.markdown}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
