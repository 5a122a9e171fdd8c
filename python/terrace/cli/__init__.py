"""The `terrace` command of the installed package; `main.py` lists what it can do."""
