"""``python -m echo_agent.cli``: the command line where no script is on the path, and under ``accelerate launch -m``."""

from echo_agent.command import main

if __name__ == "__main__":
    main()
