"""``python -m echo_agent.cli``: the command line where no script is on the path, and under ``accelerate launch -m``."""

import sys

from echo_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
