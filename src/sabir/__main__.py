"""`python -m sabir`: the same as the command `sabir`."""

from sabir.cli import main

main()
