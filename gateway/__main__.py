"""`python -m gateway` is `doorward`."""

from gateway.cli import main

if __name__ == "__main__":
    main()
