"""The verbs of ./dev, each with its module."""

MODULES = {
    "setup": "dev.setup",
    "demo": "dev.demo",
    "test": "dev.test",
    "build": "dev.build",
    "check": "dev.check.main",
    "bench": "dev.bench",
    "fmt": "dev.check.fmt",
    "dashboards": "dev.dashboards",
    "plots": "dev.plots",
    "ptx": "dev.ptx",
    "terrace": "dev.terrace",
    "campaign": "dev.campaign",
    "matrix": "dev.matrix",
    "clean": "dev.clean",
}
VERBS = tuple(MODULES)
