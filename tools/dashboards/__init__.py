"""Dashboards and alerts, described once."""
