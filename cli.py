"""`python cli.py ...` is `surgery ...`, from a checkout that is not installed."""

from surgery.commands.main import main

if __name__ == "__main__":
    main()
