"""`python -m fairway`: the same as the `fairway` command."""

from fairway.cli import main

main()
