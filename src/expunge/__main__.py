"""`python -m expunge`."""

from expunge.cli import main

if __name__ == "__main__":
    main()
