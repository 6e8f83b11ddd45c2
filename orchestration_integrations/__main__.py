"""`python -m orchestration_integrations` is the command, where the folder of its script is not on the path."""

if __name__ == "__main__":
    from .cli import main

    main()
