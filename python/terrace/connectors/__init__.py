"""One folder per engine. Importing a connector's package does not import its engine."""
