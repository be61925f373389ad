"""`python -m hyena_glt`."""

from hyena_glt.cli.main import run

if __name__ == "__main__":
    run()
