"""`python -m tiir` is the command line."""

from tiir.cli import main

if __name__ == "__main__":
    main()
