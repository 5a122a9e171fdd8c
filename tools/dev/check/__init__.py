"""The checks of ./dev check. Each yields findings; a finding names what to do instead."""
