"""Gate level: Liberty, synthesis, timing, event simulation and power of the accelerator's blocks (optional extra ``energy``)."""
