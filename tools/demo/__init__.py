"""The main job, shown: one conversation served from every tier of Terrace on a real engine."""
