"""``python -m sfm_match``: the command line."""

from sfm_match.cli import main

if __name__ == "__main__":
    main()
