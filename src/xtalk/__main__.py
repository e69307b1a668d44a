"""`python -m xtalk`: the command line, as torchrun starts it."""

from xtalk.cli import main

main()
