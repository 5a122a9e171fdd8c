"""The logic behind ./dev. Standard library only: it runs before anything is installed."""
