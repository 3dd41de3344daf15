"""``python -m penstock``: the command line, for the wrapper and for child processes."""

from penstock.cli.main import main

if __name__ == "__main__":
    main()
