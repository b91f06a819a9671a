"""`python -m colonel`: the program of this installation."""

import os
import sys

from colonel.errors import ColonelError
from colonel.program import find_program


def main() -> None:
    """Becomes the program, so that signals and exit codes are its own."""
    try:
        program = find_program()
    except ColonelError as error:
        sys.exit(f"colonel: {error}")
    os.execv(program, [program, *sys.argv[1:]])


if __name__ == "__main__":
    main()
