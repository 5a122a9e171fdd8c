"""Makes the small real model of the tests out of its GGUF package."""
