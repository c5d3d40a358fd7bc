"""Drivers, in C and in Python; the files here are what a package holds."""
