"""What a Python service of the shop has besides its own job: knobs for faults, health, an orderly end."""
