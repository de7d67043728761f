"""`python -m optkit`, which `accelerate launch -m optkit run …` needs."""

from optkit.cli.app import main

if __name__ == "__main__":
    main()
